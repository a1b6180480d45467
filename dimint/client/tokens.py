"""What a client has seen: partition → highest position. [S]

Every reply names the positions it was served at. Sent back as `min_position` they give read your writes and monotonic
reads on any replica. Positions of one log only: a token of another generation is not taken, so reads that carry the old
ones fail with DIMINT_WRONG_LOG until the owner says `forget`; nothing is dropped without a word.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dimint.errors import ParseError
from dimint.wire import parse_token

__all__ = ["Tokens"]


class Tokens:
    """The highest token of each partition.

    >>> tokens = Tokens(["4f1c:3:17", "4f1c:3:9", "4f1c:0:2"])
    >>> tokens.of([3, 5]), tokens.all()
    (['4f1c:3:17'], ['4f1c:3:17', '4f1c:0:2'])
    """

    def __init__(self, seen: Iterable[str] = ()) -> None:
        self._generation: str | None = None
        self._highest: dict[int, tuple[int, str]] = {}
        for text in seen:
            self.observe(text)

    def observe(self, text: str) -> None:
        """Raise the partition's token to this one. Raises ParseError for what is no token."""
        generation, partition, offset = parse_token(text)
        if self._generation is None:
            self._generation = generation
        elif generation != self._generation:
            return
        known = self._highest.get(partition)
        if known is None or offset > known[0]:
            self._highest[partition] = (offset, text)

    def observe_reply(self, fields: Mapping[str, Any]) -> None:
        """Take in `position` and `positions` of a reply; what is no token there is ignored."""
        one = fields.get("position")
        if type(one) is str:
            self._try(one)
        many = fields.get("positions")
        if type(many) is list:
            for text in many:
                self._try(text)

    def _try(self, text: Any) -> None:
        try:
            self.observe(str(text))
        except ParseError:
            return

    def of(self, partitions: Iterable[int]) -> list[str]:
        """Tokens of these partitions, where there are any."""
        return [self._highest[partition][1] for partition in partitions if partition in self._highest]

    def all(self) -> list[str]:
        """Every token."""
        return [text for _, text in self._highest.values()]

    def forget(self) -> None:
        """Start anew: later reads promise nothing about what was seen before."""
        self._generation = None
        self._highest.clear()
