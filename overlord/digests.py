"""Which replicas of a partition have other contents than the rest. [S]

A replica reports the digest of its contents after the first batch at or past each multiple of 4096. Where two replicas
differ at the same offset one of them is wrong, and every read of it may be. The contents that most replicas have count as
right, with as many on both sides those of the master; without a master, nobody's. Whoever differs is disputed: it serves no
reads until it agrees at a later offset, or was built anew.
"""

from collections import Counter
from collections.abc import Sequence

from dimint.door import DISPUTED, Disputed, Replica

__all__ = ["DigestTable"]

MARKS_MAX = 32
"""Offsets per partition whose digests are remembered, for replicas that are behind."""


class DigestTable:
    """What every node reported, and who is disputed: (node, partition)."""

    def __init__(self, partitions: int) -> None:
        self.disputed: frozenset[tuple[str, int]] = frozenset()
        self._agreed: set[tuple[str, int]] = set()
        self._marks: list[dict[int, dict[str, str]]] = [{} for _ in range(partitions)]
        self._latest: dict[tuple[str, int], tuple[int, str]] = {}
        self._why: dict[tuple[str, int], str] = {}

    def take(self, node: str, replicas: Sequence[Replica], masters: Sequence[str | None]) -> list[Disputed]:
        """A node's report; what it has to be told. `masters` has the master of each partition."""
        told = []
        for replica in replicas:
            partition, at = replica.partition, replica.digest_at
            who = node, partition
            if at >= 0 and self._latest.get(who) != (at, replica.digest):
                self._latest[who] = at, replica.digest
                self._note(node, replica)
                self._compare(partition, masters[partition] if partition < len(masters) else None)
            knows = replica.problem is not None and replica.problem.startswith(DISPUTED)
            if who in self.disputed and replica.problem is None:
                told.append(Disputed(partition, self._why[who]))
            elif knows and who in self._agreed:
                told.append(Disputed(partition, None))
        return told

    def forget(self, node: str) -> None:
        """The node is gone. What it reported stays to compare others with, and itself when it is back."""
        self.disputed = frozenset(who for who in self.disputed if who[0] != node)
        self._agreed = {who for who in self._agreed if who[0] != node}
        self._latest = {who: mark for who, mark in self._latest.items() if who[0] != node}

    def _note(self, node: str, replica: Replica) -> None:
        marks = self._marks[replica.partition]
        for at in [at for at in marks if at > replica.digest_at]:
            marks[at].pop(node, None)  # it was built anew
        marks.setdefault(replica.digest_at, {})[node] = replica.digest
        if len(marks) > MARKS_MAX:
            del marks[min(marks)]

    def _compare(self, partition: int, master: str | None) -> None:
        """Judge every node by its latest report."""
        disputed = set(self.disputed)
        for (node, mine), (at, digest) in self._latest.items():
            found = self._marks[partition].get(at, {})
            if mine != partition or len(found) < 2:
                continue
            counts = Counter(found.values()).most_common()
            right: str | None = counts[0][0]
            if len(counts) > 1 and counts[1][1] == counts[0][1]:
                right = found.get(master or "")
            if digest == right:
                disputed.discard((node, partition))
                self._agreed.add((node, partition))
                continue
            disputed.add((node, partition))
            self._agreed.discard((node, partition))
            others = ", ".join(f"{other} {value}" for other, value in sorted(found.items()) if value != digest)
            self._why[node, partition] = f"{DISPUTED} at offset {at}: {digest}, but {others}"
        self.disputed = frozenset(disputed)
