"""The commands of the past (`history`, `get_at`, `scan_at`, `diff`): asked of a consumer that keeps the history of keys. [S]

Any connected consumer can answer any of them. One that has said nothing for a while, or has not answered in time, is
forgotten until it speaks again, and what it was asked goes to another one.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from dimint.door_past import Ask, Historian, Told
from dimint.errors import Busy, NodeNotAvailable, TimedOut, error_for_code
from dimint.limits import PAST_ASKED_MAX
from dimint.overlord.effects import ToHistorian
from dimint.overlord.pending import Pending, PendingTable
from dimint.so_far import SoFar
from dimint.wire import min_offsets
from dimint.wire_past import question, told_reply
from dimint.wire_types import Diff, GetAt, History, ScanAt

__all__ = ["PastQuestions"]

SILENT_S: Final = 5.0
"""A consumer says every second that it is there."""
ANSWER_S: Final = 0.1
"""So long before the deadline the consumer is to answer."""
NOBODY: Final = "no consumer that keeps the history of keys is connected; does `dimint consumer start` run?"


class _Heard(NamedTuple):
    at: float
    so_far: SoFar | None


class _Asked(NamedTuple):
    pending: Pending
    peer: Any


class PastQuestions:
    """All questions under way."""

    def __init__(self, table: PendingTable, partition_of: Callable[[str], int], generation: str, partitions: int) -> None:
        self._table, self._partition_of = table, partition_of
        self._generation, self._partitions = generation, partitions
        self._heard: dict[Any, _Heard] = {}
        self._asked: dict[int, _Asked] = {}
        self._to_ask: list[Pending] = []
        self._last_id = 0

    def ask(self, pending: Pending) -> None:
        """Begin one of the commands. Raises Busy, NodeNotAvailable or ParseError."""
        if len(self._asked) + len(self._to_ask) >= PAST_ASKED_MAX:
            raise Busy(f"{PAST_ASKED_MAX} questions for the past are under way")
        if not self._heard:
            raise NodeNotAvailable(NOBODY)
        self._question(pending, 0.0)  # a token or a position that is none is refused here
        self._to_ask.append(pending)

    def heard(self, peer: Any, message: Historian | Told, now: float) -> None:
        """A consumer has come, is still there, or answers."""
        if isinstance(message, Historian):
            if message.generation == self._generation:
                self._heard[peer] = _Heard(now, message.so_far)
            return
        asked = self._asked.pop(message.id, None)
        if asked is None or asked.pending.reply is not None:
            return
        pending = asked.pending
        if message.error is not None:
            self._table.fail(pending, error_for_code(message.error, message.message))
        else:
            self._table.finish(pending, told_reply(pending.form, pending.request, self._generation, message))

    def overdue(self, pending: Pending) -> None:
        """Its time is over: say how far the consumer is that was asked, or that was just to be asked."""
        if not self._heard:
            self._table.fail(pending, NodeNotAvailable(NOBODY))
            return
        peer = next((one.peer for one in self._asked.values() if one.pending is pending), self._newest())
        heard = self._heard.get(peer)
        if heard is None or heard.so_far is None:
            self._table.fail(pending, TimedOut("the past was not told in time"))
        else:
            self._table.fail(pending, TimedOut(f"the history of keys is being made: {heard.so_far}"), so_far=heard.so_far)

    def tick(self, now: float) -> None:
        """Forget who is silent."""
        silent = {peer for peer, heard in self._heard.items() if now - heard.at > SILENT_S}
        for peer in silent:
            del self._heard[peer]
        for id, asked in list(self._asked.items()):
            if asked.pending.reply is not None:
                del self._asked[id]
            elif asked.peer in silent:
                del self._asked[id]
                self._to_ask.append(asked.pending)

    def turn(self, now: float) -> list[ToHistorian]:
        """Questions to consumers: each goes to who spoke last."""
        if not self._to_ask:
            return []
        to_ask, self._to_ask = self._to_ask, []
        sends = []
        for pending in to_ask:
            if pending.reply is not None:
                continue
            if not self._heard:
                self._table.fail(pending, NodeNotAvailable(NOBODY))
                continue
            self._last_id += 1
            peer = self._newest()
            self._asked[self._last_id] = _Asked(pending, peer)
            sends.append(ToHistorian(peer, self._question(pending, now)))
        return sends

    def _newest(self) -> Any:
        """Who spoke last, which is alive if any is."""
        return max(self._heard, key=lambda peer: self._heard[peer].at)

    def _question(self, pending: Pending, now: float) -> Ask:
        request: GetAt | ScanAt | History | Diff = pending.request
        partition = self._partition_of(request.key) if isinstance(request, GetAt | History) else -1
        offsets = min_offsets(request, self._generation, self._partitions)
        if partition >= 0:
            offsets = {at: end for at, end in offsets.items() if at == partition}
        wait_ms = max(0, int((pending.deadline - now - ANSWER_S) * 1000))
        return question(request, self._last_id, partition, sorted(offsets.items()), wait_ms)
