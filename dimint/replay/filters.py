"""Which events are wanted. [S]"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dimint.events import KINDS, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.replay.event import LoggedEvent
from dimint.replay.positions import Range

__all__ = ["EVERYTHING", "Filter"]


class Filter(NamedTuple):
    """An event is wanted if it fits all that is given; of several kinds any one, and `host.*` is all that begin so.

    `key` is a whole key, or with `is_prefix` how it begins; `source` the host that wrote it; `who` a client's id or the
    process that wrote it.
    """

    kinds: tuple[str, ...] = ()
    key: str | None = None
    is_prefix: bool = False
    source: str | None = None
    who: str | None = None

    @classmethod
    def of(cls, *, kinds: tuple[str, ...], key: str | None, source: str | None, who: str | None) -> "Filter":
        """From what a user gave: a key that ends in `*` is a prefix, one that ends in `**` is a key that ends in `*`.

        >>> [Filter.of(kinds=(), key=key, source=None, who=None)[1:3] for key in ("user:*", "user:**", "user")]
        [('user:', True), ('user:*', False), ('user', False)]
        """
        if key is None or not key.endswith("*"):
            return cls(kinds, key, False, source, who)
        return cls(kinds, key[:-1], not key.endswith("**"), source, who)

    def wants(self, event: LoggedEvent) -> bool:
        """Whether the event fits."""
        if self.kinds and not any(_is_kind(event.kind, kind) for kind in self.kinds):
            return False
        if self.key is not None and not self._fits(event.key):
            return False
        by = event.by
        if self.source is not None and by.host != self.source:
            return False
        return self.who is None or self.who in (by.client, by.process)

    def topics(self, among: Sequence[str]) -> Sequence[str]:
        """The topics that may have what is wanted: a known kind has one.

        >>> Filter(("kv.set", "kv.incr")).topics(("dimint.kv", "dimint.status"))
        ['dimint.kv']
        """
        if not self.kinds or not all(kind in KINDS for kind in self.kinds):
            return among
        return [topic for topic in among if any(KINDS[kind].topic == topic for kind in self.kinds)]

    def narrow(self, ranges: Iterable[Range], genesis: Genesis) -> list[Range]:
        """The ranges of partitions that may have what is wanted: a whole key has one home in a topic."""
        if self.key is None or self.is_prefix:
            return list(ranges)
        homes = {KV_TOPIC: genesis.partition_of_key(self.key.encode()), STATUS_TOPIC: genesis.status_partition(self.key)}
        return [each for each in ranges if homes.get(each.topic, each.partition) == each.partition]

    def _fits(self, key: str | None) -> bool:
        assert self.key is not None
        return key is not None and (key.startswith(self.key) if self.is_prefix else key == self.key)


def _is_kind(kind: str, wanted: str) -> bool:
    return kind.startswith(wanted[:-1]) if wanted.endswith("*") else kind == wanted


EVERYTHING = Filter()
