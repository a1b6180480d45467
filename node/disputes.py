"""Partitions of a node whose contents an overlord disputes, and what is done about each. [S]

Two replicas that differ at the same offset are both in doubt until one of them was derived again: from the log, or where the
log is trimmed by adding up its rows. That is done once a dispute. What a replica holds then counts more than what others had
all along (`anew`), until it has been found equal to another one.
"""

__all__ = ["Disputes"]


class Disputes:
    """By partition. A disputed one serves no reads, but for one that is built anew, from when it has caught up."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._renewing: set[int] = set()
        self._anew: set[int] = set()
        self._done: set[int] = set()

    def __contains__(self, partition: object) -> bool:
        return partition in self._texts

    def text(self, partition: int) -> str | None:
        """What is said against it, None if nothing is."""
        return self._texts.get(partition)

    def disputed(self) -> frozenset[int]:
        return frozenset(self._texts)

    def anew(self, partition: int) -> bool:
        """Whether it was derived again since it last was found equal to another one."""
        return partition in self._anew

    def take(self, partition: int, text: str) -> bool:
        """Something is said against it; whether it is to be derived again now."""
        self._texts[partition] = text
        return partition not in self._done

    def derived(self, partition: int) -> None:
        """It is right as far as this node can tell, and stays disputed until an overlord agrees."""
        self._done.add(partition)
        self._anew.add(partition)

    def renews(self, partition: int, *, from_log: bool) -> None:
        """It is read from the log's start, right as far as it is, or taken from another node."""
        self._done.add(partition)
        self._renewing.add(partition)
        if from_log:
            self._anew.add(partition)

    def is_renewing(self, partition: int) -> bool:
        return partition in self._renewing

    def end(self, partition: int, *, agreed: bool = False) -> bool:
        """Nothing is said against it any more; whether something was. `agreed`: it is equal to another one."""
        self._renewing.discard(partition)
        if agreed:
            self._anew.discard(partition)
            self._done.discard(partition)
        return self._texts.pop(partition, None) is not None

    def closed(self, partition: int) -> None:
        """There is no replica now, but there will be one."""
        self._renewing.discard(partition)

    def forget(self, partition: int) -> None:
        """The node does not hold it any more."""
        self.end(partition, agreed=True)
