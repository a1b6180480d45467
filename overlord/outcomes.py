"""Who waits for the outcome of an applied batch. [S]

The partition's master pushes the outcomes of this overlord's batches. They may come before the log's own answer, late, or
never (the master changed, the connection broke): then any live replica is asked, again and again, until the requests'
deadlines. An index that is left out of an Outcomes message was plainly applied.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dimint.door import AskOutcomes, Outcome, Outcomes
from dimint.overlord.writes import Entry, is_done

__all__ = ["ASK_AFTER_S", "OutcomeTable"]

ASK_AFTER_S = 0.3
EARLY_MAX = 64
"""Outcomes kept of batches that the log has not answered for yet."""


class _Waiting:
    __slots__ = ("ask_at", "asked", "entries", "token")

    def __init__(self, entries: list[Entry], token: str, ask_at: float) -> None:
        self.entries, self.token, self.ask_at = entries, token, ask_at
        self.asked = 0


class Ask(NamedTuple):
    """Ask some replica; `attempt` counts from 0, the master first."""

    message: AskOutcomes
    attempt: int


class OutcomeTable:
    """Entries of acknowledged batches, by (partition, number of the batch).

    `was_new` is told of each that left no outcome: it was plainly applied, for the first time.
    """

    def __init__(self, writer: bytes, was_new: Callable[[int, Entry], None]) -> None:
        self._writer, self._was_new = writer, was_new
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._early: dict[tuple[int, int], Outcomes] = {}
        self.dropped_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, partition: int, number: int, token: str, entries: list[Entry], now: float, *, ask_now: bool) -> None:
        """Answer the entries of a batch as soon as their outcomes are known."""
        early = self._early.pop((partition, number), None)
        if early is not None and early.known:
            self._answer(entries, token, early)
        else:
            self._waiting[partition, number] = _Waiting(entries, token, now if ask_now else now + ASK_AFTER_S)

    def landed_without(self, partition: int, number: int) -> None:
        """A batch is acknowledged and nobody waits for its outcomes."""
        if self._early:
            self._early.pop((partition, number), None)

    def take(self, message: Outcomes) -> None:
        """Outcomes from a node."""
        if message.writer != self._writer:
            return
        at = message.partition, message.number
        waiting = self._waiting.get(at)
        if waiting is None:
            # perhaps the log's own answer is still on its way here; what is not asked for falls out at the old end
            if len(self._early) >= EARLY_MAX:
                del self._early[next(iter(self._early))]
                self.dropped_count += 1
            self._early[at] = message
        elif message.known:
            del self._waiting[at]
            self._answer(waiting.entries, waiting.token, message)

    def due(self, now: float) -> Iterator[Ask]:
        """What to ask now. Batches of which every request is over are forgotten."""
        for at, waiting in list(self._waiting.items()):
            if waiting.ask_at > now:
                continue
            if all(is_done(entry.pending) for entry in waiting.entries):
                del self._waiting[at]
                continue
            yield Ask(AskOutcomes(at[0], self._writer, at[1]), waiting.asked)
            waiting.asked += 1
            waiting.ask_at = now + ASK_AFTER_S

    def _answer(self, entries: list[Entry], token: str, message: Outcomes) -> None:
        for entry in entries:
            outcome = _APPLIED
            for index in range(entry.first, entry.first + entry.length):
                if index in message.outcomes:
                    outcome = message.outcomes[index]
                    break
            else:  # what was applied before, or is superseded, has an outcome
                self._was_new(message.partition, entry)
            entry.done(entry, token, outcome)

    def hurry(self, now: float) -> None:
        """Masters changed: whoever waits asks at once."""
        for waiting in self._waiting.values():
            waiting.ask_at = now


_APPLIED = Outcome("applied")
