"""How far a topic may be trimmed: never past anybody who still needs the records. [S]"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dimint.errors import NotSafe
from dimint.log.port import Bounds
from dimint.replay.positions import format_position

__all__ = ["Cut", "Needs", "check_safe", "plan", "taking"]


class Needs(NamedTuple):
    """Somebody who needs what stands in the log: partition → the first offset that must stay. Other partitions may go."""

    who: str
    first: Mapping[int, int]


class Cut(NamedTuple):
    """What is trimmed of a partition: offsets [start, before). `wanted` was asked for, `kept_for` says who needs the rest."""

    partition: int
    start: int
    before: int
    wanted: int
    kept_for: str = ""

    @property
    def records(self) -> int:
        """Offsets that go."""
        return self.before - self.start


def plan(bounds: Mapping[int, Bounds], wanted: Mapping[int, int], needs: Sequence[Needs]) -> list[Cut]:
    """A cut for each partition of `wanted`, as far as is asked for and everybody allows; cuts may be empty."""
    cuts = []
    for partition, asked in sorted(wanted.items()):
        start, end = bounds[partition]
        before, kept_for = max(start, min(asked, end)), ""
        for one in needs:
            first = max(start, one.first.get(partition, end))  # what is gone already nobody can need
            if first < before:
                before, kept_for = first, one.who
        cuts.append(Cut(partition, start, before, max(start, min(asked, end)), kept_for))
    return cuts


def check_safe(topic: str, cuts: Sequence[Cut]) -> None:
    """Raises NotSafe, naming the first partition of which more was asked for than may go."""
    for cut in cuts:
        if cut.kept_for:
            asked = format_position(topic, cut.partition, cut.wanted)
            raise NotSafe(
                f"{asked} cannot be trimmed to: {cut.kept_for} needs what stands from {cut.before} on",
                hint="trim less, or with --as-far-as-safe as much as is safe",
            )


def taking(cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts that take something."""
    return [cut for cut in cuts if cut.records > 0]
