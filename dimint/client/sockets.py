"""The sockets of one client: performs what the session wants sent and dropped."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from dimint.client.network import Effect, Send
from dimint.curve import Key
from dimint.errors import SettingsError
from dimint.transport import Context, Dealer

__all__ = ["Sockets"]


class Sockets:
    """Address → dealer, opened on demand. Belongs to one thread at a time."""

    def __init__(self, opened: Callable[[Dealer], None], dropping: Callable[[Dealer], None], key: Key | None) -> None:
        self._opened = opened
        self._dropping = dropping
        self._context = Context(key)
        self._dealers: dict[str, Dealer] = {}

    def open(self, address: str) -> Dealer:
        """Raises SettingsError for what is no address."""
        dealer = self._dealers.get(address)
        if dealer is None:
            dealer = self._dealers[address] = self._context.dealer(address)
            self._opened(dealer)
        return dealer

    def perform(self, effects: Iterable[Effect]) -> None:
        """Never blocks. What cannot be sent is a lost request: the session repeats it or settles it."""
        for effect in effects:
            if type(effect) is Send:
                # an address that some overlord gave; the ones the user gave were opened, and checked, at the start
                with suppress(SettingsError):
                    self.open(effect.address).send(effect.frame)
            elif (dealer := self._dealers.pop(effect.address, None)) is not None:
                self._dropping(dealer)
                dealer.close()

    def close(self) -> None:
        """Idempotent."""
        for dealer in self._dealers.values():
            self._dropping(dealer)
            dealer.close()
        self._dealers.clear()
        self._context.close()
