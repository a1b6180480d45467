"""A node's connections to the overlords: one dealer to each node door, greeted anew whenever the other side is new."""

import logging
from collections.abc import Mapping
from typing import Final

from dimint import door
from dimint.door import AskOutcomes, Disputed, Fetch, FromNode, Hello, Progress, Reads, Unfetch, Welcome
from dimint.errors import ParseError, SettingsError
from dimint.node.membership_view import OverlordInfo
from dimint.transport import Context, Dealer, Door, Poller

__all__ = ["Link", "Links"]

GREET_AGAIN_S: Final = 1.0
PROGRESS_S: Final = 0.2
PROGRESS_ANYWAY_S: Final = 0.5
"""Progress is sent this often even if nothing changed: a connection that broke and came back is found out by it."""
RECEIVE_MAX: Final = 2000

logger = logging.getLogger("dimint.node")


class Link:
    """One overlord. `writer` is the incarnation of its batches, b"" until it said Welcome."""

    def __init__(self, overlord: str, info: OverlordInfo, dealer: Dealer) -> None:
        self.overlord, self.info, self.dealer = overlord, info, dealer
        self.writer = b""
        self.greeted_at = float("-inf")
        self.refused: str | None = None
        self.is_gone = False
        """Its overlord is no member any more and the dealer closed; what still waited for it may be answered later."""

    def send(self, message: FromNode) -> None:
        """Queue a message; dropped if the other side is gone or does not read: whoever waits for it asks again."""
        if not self.is_gone:
            self.dealer.send(door.encode(message))


class Links:
    """All of them, by overlord."""

    def __init__(self, context: Context, poller: Poller, hello: Hello) -> None:
        self._context, self._poller, self._hello = context, poller, hello
        self._links: dict[str, Link] = {}
        self._by_member: dict[Door | Dealer, Link] = {}
        self._by_writer: dict[bytes, Link] = {}
        self._progress: Progress | None = None
        self._sent_at = float("-inf")
        self._looked_at = float("-inf")

    @property
    def welcomed(self) -> bool:
        """Whether some overlord knows this node."""
        return bool(self._by_writer)

    def follow(self, overlords: Mapping[str, OverlordInfo], now: float) -> list[Link]:
        """Connect to exactly these; the links that are gone."""
        gone = []
        for overlord, link in list(self._links.items()):
            info = overlords.get(overlord)
            if info is not None and info.address == link.info.address:
                if info != link.info:  # started again on the same address
                    self._by_writer.pop(link.writer, None)
                    link.info, link.writer = info, b""
                    self._greet(link, now)
                continue
            gone.append(link)
            self._drop(link)
        for overlord, info in overlords.items():
            if overlord not in self._links:
                try:
                    dealer = self._context.dealer(info.address)
                except SettingsError as error:
                    logger.warning("overlord %s: %s", overlord, error)
                    continue
                link = self._links[overlord] = Link(overlord, info, dealer)
                self._by_member[dealer] = link
                self._poller.add(dealer)
                self._greet(link, now)
        return gone

    def receive(self, member: Door | Dealer) -> tuple[Link, list[Reads | AskOutcomes | Fetch | Unfetch | Disputed]] | None:
        """What a ready dealer has; Welcomes are taken care of. None for what is not one of the dealers."""
        link = self._by_member.get(member)
        if link is None:
            return None
        messages: list[Reads | AskOutcomes | Fetch | Unfetch | Disputed] = []
        for frame in link.dealer.receive(RECEIVE_MAX):
            try:
                message = door.decode_from_overlord(frame)
            except ParseError as error:
                logger.warning("overlord %s sent what no overlord sends: %s", link.overlord, error)
                continue
            if isinstance(message, Welcome):
                self._welcome(link, message)
            else:
                messages.append(message)
        return link, messages

    def of_writer(self, writer: bytes) -> Link | None:
        """The overlord that appended a batch."""
        return self._by_writer.get(writer)

    def tick(self, now: float) -> None:
        """Greet again who has not answered."""
        for link in self._links.values():
            if not link.writer and now - link.greeted_at >= GREET_AGAIN_S:
                self._greet(link, now)

    def progress_is_due(self, now: float) -> bool:
        """Whether it is time to look for progress; at most every PROGRESS_S."""
        if now - self._looked_at < PROGRESS_S:
            return False
        self._looked_at = now
        return True

    def report(self, progress: Progress, now: float) -> None:
        """Tell everybody, if it is news (or was long ago)."""
        if progress == self._progress and now - self._sent_at < PROGRESS_ANYWAY_S:
            return
        self._progress, self._sent_at = progress, now
        self.send_all(progress)

    def send_all(self, message: FromNode) -> None:
        """Tell every overlord that knows this node."""
        for link in self._links.values():
            if link.writer:
                link.send(message)

    def close(self) -> None:
        """Idempotent."""
        for link in list(self._links.values()):
            self._drop(link)

    def _greet(self, link: Link, now: float) -> None:
        link.greeted_at = now
        link.send(self._hello)

    def _welcome(self, link: Link, message: Welcome) -> None:
        if message.refused is not None:
            if message.refused != link.refused:
                logger.error("overlord %s refuses this node: %s", link.overlord, message.refused)
            link.refused = message.refused
            return
        link.refused = None
        link.writer = message.writer
        self._by_writer[message.writer] = link
        if self._progress is not None:
            link.send(self._progress)

    def _drop(self, link: Link) -> None:
        del self._links[link.overlord]
        del self._by_member[link.dealer]
        if self._by_writer.get(link.writer) is link:
            del self._by_writer[link.writer]
        self._poller.remove(link.dealer)
        link.is_gone = True
        link.dealer.close()
