"""The way of alerts into the log: small batches, in order, tried again until the log has them."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from dimint.errors import AppendUnknown, NotApplied
from dimint.events import STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.limits import BATCH_MAX_EVENTS
from dimint.log.port import Log
from dimint.writer import Appended, BatchWriter, Outgoing

__all__ = ["Journal", "have_reached"]

_AGAIN_S: Final = 0.5
_LOOK_S: Final = 0.2


class Journal:
    """The log and the writer stay the caller's to close. `stopping` ends every wait."""

    def __init__(self, source: Log, genesis: Genesis, writer: BatchWriter, stopping: threading.Event) -> None:
        self._log, self._genesis, self._writer, self._stopping = source, genesis, writer, stopping

    def append(self, events: Sequence[list[Any]]) -> bool:
        """Events of hosts, `["alert.…", host, 0, 0, …]`. Waits until all are in the log; False if the process ends before.

        Raises LogBroken.
        """
        left: dict[int, list[list[Any]]] = {}
        for event in events:
            left.setdefault(self._genesis.status_partition(event[1]), []).append(event)
        while left:
            batches = [
                Outgoing(STATUS_TOPIC, partition, (self._writer.by,), some[:BATCH_MAX_EVENTS]) for partition, some in left.items()
            ]
            failed = False
            for batch, future in zip(batches, self._writer.append(batches), strict=True):
                took = self._wait(future)
                if took is None:
                    return False
                failed |= not took
                if took:
                    del left[batch.partition][: len(batch.events)]
            left = {partition: some for partition, some in left.items() if some}
            if failed and self._stopping.wait(_AGAIN_S):
                return False
        return True

    def ends(self) -> dict[int, int]:
        """Partition of the status topic → the offset that its next record gets. Raises LogUnavailable."""
        return {at: self._log.bounds(STATUS_TOPIC, at).end for at in range(self._genesis.status_partitions)}

    def _wait(self, future: Future[Appended]) -> bool | None:
        """Whether the log took a batch; None if the process ends before that is known."""
        while True:
            try:
                future.result(timeout=_LOOK_S)
            except FutureTimeout:
                if self._stopping.is_set():
                    return None
            except (NotApplied, AppendUnknown):  # unknown: it is looked at again, and written again only if it is not there
                return False
            else:
                return True


def have_reached(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    """Whether tables that read up to `positions` have seen everything below `ends`."""
    return all(positions.get(partition, 0) >= end for partition, end in ends.items())
