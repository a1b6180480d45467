"""Which replicas of a partition have other contents than the rest. [S]

A replica reports the digest of its contents after the first batch at or past each multiple of 4096. Where two replicas
differ at the same offset one of them is wrong, and every read of it may be. The log decides which: what was built anew from it
(`anew`) is right. Until one was, the contents that more than half of the replicas have count as right, and without such a
half nobody's, the master's neither. Whoever differs is disputed: it serves no reads and builds itself anew.
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
        self._cleared: set[tuple[str, int]] = set()  # found right
        self._equal: set[tuple[str, int]] = set()  # and so were all that were compared
        self._anew: set[tuple[str, int]] = set()
        self._marks: list[dict[int, dict[str, str]]] = [{} for _ in range(partitions)]
        self._latest: dict[tuple[str, int], tuple[int, str]] = {}
        self._why: dict[tuple[str, int], str] = {}

    def take(self, node: str, replicas: Sequence[Replica]) -> list[Disputed]:
        """A node's report; what it has to be told."""
        told = []
        for replica in replicas:
            partition, at = replica.partition, replica.digest_at
            who = node, partition
            if at >= 0 and (self._latest.get(who) != (at, replica.digest) or replica.anew != (who in self._anew)):
                self._latest[who] = at, replica.digest
                (self._anew.add if replica.anew else self._anew.discard)(who)
                self._note(node, replica)
                self._compare(partition)
            knows = replica.problem is not None and replica.problem.startswith(DISPUTED)
            if who in self.disputed:
                if replica.problem is None:
                    told.append(Disputed(partition, self._why[who]))
            elif replica.building is not None and replica.building.percent < 100:
                continue  # what it was equal in long ago says nothing
            elif (knows and who in self._cleared) or (replica.anew and who in self._equal):
                told.append(Disputed(partition, None, agreed=who in self._equal))
        return told

    def forget(self, node: str) -> None:
        """The node is gone. What it reported stays to compare others with, and itself when it is back."""
        self.disputed = frozenset(who for who in self.disputed if who[0] != node)
        for known in (self._cleared, self._equal, self._anew):
            known.difference_update([who for who in known if who[0] == node])
        self._latest = {who: mark for who, mark in self._latest.items() if who[0] != node}

    def _note(self, node: str, replica: Replica) -> None:
        marks = self._marks[replica.partition]
        for at in [at for at in marks if at > replica.digest_at]:
            marks[at].pop(node, None)  # it was built anew
        marks.setdefault(replica.digest_at, {})[node] = replica.digest
        if len(marks) > MARKS_MAX:
            del marks[min(marks)]

    def _compare(self, partition: int) -> None:
        """Judge every node by its latest report."""
        disputed = set(self.disputed)
        for (node, mine), (at, digest) in self._latest.items():
            who = node, partition
            found = self._marks[partition].get(at, {})
            if mine != partition or (len(found) < 2 and who not in self._anew):
                continue
            if digest == self._right(partition, found):
                disputed.discard(who)
                self._cleared.add(who)
                equal = len(found) > 1 and len(set(found.values())) == 1
                (self._equal.add if equal else self._equal.discard)(who)
                continue
            disputed.add(who)
            self._cleared.discard(who)
            self._equal.discard(who)
            others = ", ".join(f"{other} {value}" for other, value in sorted(found.items()) if value != digest)
            self._why[who] = f"{DISPUTED} at offset {at}: {digest}, but {others or 'no other one'}"
        self.disputed = frozenset(disputed)

    def _right(self, partition: int, found: dict[str, str]) -> str | None:
        """The digest that counts of those found at one offset; None if there is no telling."""
        anew = {digest for node, digest in found.items() if (node, partition) in self._anew}
        if anew:
            return anew.pop() if len(anew) == 1 else None
        digest, count = Counter(found.values()).most_common(1)[0]
        return digest if 2 * count > len(found) else None
