"""What a node answers to overlords: reads, questions for outcomes and for changes. [S]

Link is whatever the driver calls one overlord by. Messages pile up per link until `take`: reads that are answered in one
turn of the driver go out in one Answers.
"""

from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from dimint.door import MOVED, Answer, Answers, AskOutcomes, Fetch, Fetched, Found, Outcomes, Read, Unfetch
from dimint.errors import Busy, TimedOut, TooLarge
from dimint.limits import READ_WAIT_MAX_MS, REQUESTS_IN_FLIGHT_MAX
from dimint.node.ages import Ages
from dimint.node.pending import Pending
from dimint.node.replica import Applied, Replica
from dimint.node.watches import Found as Changes
from dimint.node.watches import Watch, Watches
from dimint.positions import Position

__all__ = ["Desk"]

ANSWER_MAX_BYTES: Final = 40 << 20
"""Most bytes of values in one answer."""
MESSAGE_BYTES: Final = 4 << 20
"""An Answers message is closed when it has so many bytes of values."""

Link = TypeVar("Link")


class _Ask(NamedTuple, Generic[Link]):
    link: Link
    message: AskOutcomes
    deadline: float


class _Pile:
    """Answers on their way to one link."""

    __slots__ = ("answers", "bytes", "messages")

    def __init__(self) -> None:
        self.messages: list[Answers | Outcomes | Fetched] = []
        self.answers: list[Answer] = []
        self.bytes = 0

    def add(self, answer: Answer, size: int) -> None:
        self.answers.append(answer)
        self.bytes += size
        if self.bytes > MESSAGE_BYTES:
            self.close()

    def close(self) -> None:
        if self.answers:
            self.messages.append(Answers(self.answers))
            self.answers, self.bytes = [], 0


class Desk(Generic[Link]):
    """`replicas` is the live map of what the node holds, `lacking` the live set of those that answer no weak reads yet: an
    overlord hears of that only afterwards. Times are seconds of a monotonic clock."""

    def __init__(
        self,
        replicas: Mapping[int, Replica],
        watches: Watches,
        ages: Ages | None = None,
        *,
        lacking: Container[int] = frozenset(),
    ) -> None:
        self._replicas, self._watches, self._lacking = replicas, watches, lacking
        self._ages = ages or Ages(replicas)
        self._fetches: dict[tuple[Link, int], Watch] = {}
        self._waiting: Pending[tuple[Link, Read]] = Pending()
        self._asks: dict[int, list[_Ask[Link]]] = {}
        self._ask_count = 0
        self._piles: dict[Link, _Pile] = {}

    def read(self, link: Link, reads: Sequence[Read], now: float) -> None:
        """Answer reads now or as soon as their partition is there."""
        for read in reads:
            replica = self._replicas.get(read.partition)
            if replica is None or (not read.strict and read.partition in self._lacking):
                self._add(link, Answer(read.id, 0, [], MOVED))
            elif replica.next_offset >= read.min_offset:
                self._serve(link, read, replica)
            elif read.wait_ms <= 0:
                self._overdue(link, read)
            else:
                deadline = now + min(read.wait_ms, READ_WAIT_MAX_MS) / 1000
                if not self._waiting.add(read.partition, read.min_offset, deadline, (link, read)):
                    self._add(link, Answer(read.id, replica.next_offset, [], Busy.code))

    def ask(self, link: Link, message: AskOutcomes, now: float) -> None:
        """Tell a batch's outcomes now or when it is applied."""
        ask = _Ask(link, message, now + READ_WAIT_MAX_MS / 1000)
        if not self._told(ask) and self._ask_count < REQUESTS_IN_FLIGHT_MAX:
            self._asks.setdefault(message.partition, []).append(ask)
            self._ask_count += 1

    def fetch(self, link: Link, message: Fetch, now: float) -> None:
        """Tell changes as soon as there are any."""
        positions: dict[int, Position | None] = {at: Position(offset, events) for at, offset, events in message.positions}
        starts = dict(message.starts)
        positions.update(dict.fromkeys(starts))
        deadline = now + min(message.wait_ms, READ_WAIT_MAX_MS) / 1000
        answer = partial(self._fetched, link, message.id)
        watch = self._fetches[link, message.id] = Watch(answer, message.key, message.prefix, positions, deadline, starts)
        self._watches.start(watch, now)

    def unfetch(self, link: Link, message: Unfetch) -> None:
        """The overlord does not wait for these any more."""
        for id in message.ids:
            self._stop(link, id)

    def push(self, link: Link, partition: int, applied: Applied) -> None:
        """Tell outcomes unasked."""
        offset, writer, number, outcomes = applied
        self._pile(link).messages.append(Outcomes(partition, writer, number, offset, outcomes))

    def came_on(self, partition: int) -> None:
        """The partition's replica has applied something."""
        replica = self._replicas.get(partition)
        if replica is not None:
            for link, read in self._waiting.reached(partition, replica.next_offset):
                self._serve(link, read, replica)
        asks = self._asks.get(partition)
        if asks:
            left = [ask for ask in asks if not self._told(ask)]
            self._ask_count -= len(asks) - len(left)
            self._asks[partition] = left

    def dropped(self, partition: int) -> None:
        """The partition is held no more."""
        for link, read in self._waiting.drop(partition):
            self._add(link, Answer(read.id, 0, [], MOVED))
        self._ask_count -= len(self._asks.pop(partition, ()))

    def expire(self, now: float) -> None:
        """Answer what waited long enough."""
        for _, (link, read) in self._waiting.expire(now):
            self._overdue(link, read)
        for partition, asks in list(self._asks.items()):
            left = [ask for ask in asks if ask.deadline > now]
            self._ask_count -= len(asks) - len(left)
            if left:
                self._asks[partition] = left
            else:
                del self._asks[partition]

    def lost(self, link: Link) -> None:
        """The overlord is gone; nothing goes to it any more."""
        for known, id in [at for at in self._fetches if at[0] is link]:
            self._stop(known, id)
        self._piles.pop(link, None)

    def next_deadline(self) -> float | None:
        """When `expire` has a read to answer."""
        return self._waiting.next_deadline()

    @property
    def owes_outcomes(self) -> bool:
        """Whether somebody has asked for outcomes of a batch that is not applied yet."""
        return self._ask_count > 0

    def take(self) -> list[tuple[Link, Answers | Outcomes | Fetched]]:
        """Messages to send now."""
        if not self._piles:
            return []
        piles, self._piles = self._piles, {}
        taken: list[tuple[Link, Answers | Outcomes | Fetched]] = []
        for link, pile in piles.items():
            pile.close()
            taken += [(link, message) for message in pile.messages]
        return taken

    def _fetched(self, link: Link, id: int, found: Changes) -> None:
        if self._fetches.pop((link, id), None) is None:
            return
        positions = [(partition, *position) for partition, position in found.positions.items()]
        self._pile(link).messages.append(Fetched(id, positions, list(found.changes.items()), found.error, found.oldest))

    def _stop(self, link: Link, id: int) -> None:
        watch = self._fetches.pop((link, id), None)
        if watch is not None:
            self._watches.end(watch)

    def _told(self, ask: _Ask[Link]) -> bool:
        partition, writer, number = ask.message.partition, ask.message.writer, ask.message.number
        replica = self._replicas.get(partition)
        known = None if replica is None else replica.outcomes_of(writer, number)
        if known is None:
            return False
        message = Outcomes(partition, writer, number, known.offset, known.outcomes, known=known.kept)
        self._pile(ask.link).messages.append(message)
        return True

    def _overdue(self, link: Link, read: Read) -> None:
        replica = self._replicas.get(read.partition)
        if replica is None or (not read.strict and read.partition in self._lacking):
            self._add(link, Answer(read.id, 0, [], MOVED))
        elif read.strict:
            self._add(link, Answer(read.id, replica.next_offset, [], TimedOut.code))
        else:
            self._serve(link, read, replica)

    def _serve(self, link: Link, read: Read, replica: Replica) -> None:
        found: list[Found]
        if read.kind == "get":
            found = replica.get(read.keys)
        else:
            found = replica.scan(read.keys[0] if read.keys else "", read.after, read.limit).found
        size = sum([len(one.value) for one in found])
        if size > ANSWER_MAX_BYTES:
            self._add(link, Answer(read.id, replica.next_offset, [], TooLarge.code))
        else:
            age_ms = self._ages.age_ms(read.partition)
            self._add(link, Answer(read.id, replica.next_offset, found, None, age_ms), size)

    def _add(self, link: Link, answer: Answer, size: int = 0) -> None:
        self._pile(link).add(answer, size)

    def _pile(self, link: Link) -> _Pile:
        pile = self._piles.get(link)
        if pile is None:
            pile = self._piles[link] = _Pile()
        return pile
