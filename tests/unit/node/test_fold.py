"""Every rule of what an event does to a partition, one at a time."""

from typing import Any

import pytest

from dimint.batch import By, encode
from dimint.door import Outcome
from dimint.events import KV_TOPIC
from dimint.log.port import Record
from dimint.node.replica import Applied, Replica
from dimint.node.state import MemoryState
from tests.support.placing import ONE

PEOPLE = (By(None, "h", "p"), By("ann", "h", "p"), By("bob", "h", "p"))
ANN, BOB = 1, 2
T = 1_000_000


class Partition:
    """A replica in memory and its log: every call appends one batch and applies it."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.replica = Replica(0, ONE, self.state)
        self.number = 0
        self.records: list[Record] = []

    def __call__(self, *events: list[Any], at_us: int = T, people: tuple[By, ...] = PEOPLE) -> dict[int, Outcome]:
        self.number += 1
        return self.give(encode(b"w" * 16, self.number, 0, people, events), at_us=at_us)

    def give(self, value: bytes, *, at_us: int = T) -> dict[int, Outcome]:
        self.records.append(Record(KV_TOPIC, 0, len(self.records), at_us * 1000, value))
        reported: list[Applied] = self.replica.apply(self.records[-1:])
        return reported[0].outcomes if reported else {}

    def get(self, key: str) -> tuple[bytes, int, int] | None:
        found = self.replica.get([key])
        return (found[0].value, found[0].version, found[0].expires_us) if found else None


@pytest.fixture
def partition() -> Partition:
    return Partition()


def _set(
    key: str, value: bytes = b"J1", *, by: int = 0, seq: int | None = None, ttl: int | None = None, mode: int = 0
) -> list[Any]:
    return ["kv.set", key, 0, by, seq, value, ttl, mode]


def _incr(key: str, amount: int = 1, *, by: int = 0, seq: int | None = None) -> list[Any]:
    return ["kv.incr", key, 0, by, seq, amount]


def _cas(key: str, expected: bytes | None, version: int | None, value: bytes = b"J9") -> list[Any]:
    return ["kv.cas", key, 0, 0, None, expected, version, value, None]


def test_a_plain_set_has_no_outcome_and_the_log_time_as_version(partition: Partition) -> None:
    """Nobody waits for the outcome of a plain write."""
    assert partition(_set("k", b"J1")) == {}
    assert partition.get("k") == (b"J1", T, 0)


def test_versions_rise_within_one_log_time(partition: Partition) -> None:
    """Several changes at one log time get one version each."""
    partition(_set("k"), _set("k"), _incr("k"))
    assert partition.get("k") == (b"J2", T + 2, 0)
    partition(_set("k"), at_us=T - 5)
    assert partition.get("k") == (b"J1", T + 3, 0)
    partition(_set("k"), at_us=T + 50)
    assert partition.get("k") == (b"J1", T + 50, 0)


def test_a_deleted_key_never_gets_a_version_again(partition: Partition) -> None:
    """A key that is deleted and written at one log time goes on where it was; the memory of it goes with log time."""
    partition(_set("k"), _set("k"), ["kv.delete", "k", 0, 0, None], _set("k"))
    assert partition.get("k") == (b"J1", T + 2, 0)
    partition(["kv.delete", "k", 0, 0, None])
    assert any(key[:1] == b"d" for key in partition.state.side.rows)
    partition(_set("other"), at_us=T + 3)
    assert not any(key[:1] == b"d" for key in partition.state.side.rows)
    partition(_set("k"), at_us=T + 3)
    assert partition.get("k") == (b"J1", T + 3, 0)


def test_modes_of_set(partition: Partition) -> None:
    """A conditional set says whether it was done, and what is there if it was not."""
    assert partition(_set("k", mode=2)) == {0: Outcome("condition", None, 0)}
    assert partition(_set("k", mode=1)) == {0: Outcome("applied", None, T)}
    assert partition(_set("k", b"J2", mode=1)) == {0: Outcome("condition", None, T)}
    assert partition(_set("k", b"J2", mode=2)) == {0: Outcome("applied", None, T + 1)}


def test_incr(partition: Partition) -> None:
    """It counts from 0, keeps the expiry, takes integers of any size and refuses the rest."""
    assert partition(_incr("k", -5)) == {0: Outcome("applied", "-5", T)}
    partition(_set("t", b"J%d" % 10**30, ttl=1000))
    assert partition(_incr("t")) == {0: Outcome("applied", str(10**30 + 1), T + 1)}
    assert partition.get("t") == (b"J%d" % (10**30 + 1), T + 1, T + 1_000_000)
    for value in (b"J1.0", b"Jtrue", b'J"1"', b"M\x01", b"J" + b"9" * 2000, b"Jnot json"):
        partition(_set("bad", value))
        version = partition.get("bad")
        assert version is not None
        assert partition(_incr("bad")) == {0: Outcome("not_integer", None, version[1])}


def test_cas_by_value_and_by_version(partition: Partition) -> None:
    """Values are compared as values, versions as numbers; 0 means absent."""
    assert partition(_cas("k", b"J1", None)) == {0: Outcome("condition", None, 0)}
    assert partition(_cas("k", None, 0, b'J{"a":1,"b":2}')) == {0: Outcome("applied", None, T)}
    assert partition(_cas("k", None, 0)) == {0: Outcome("condition", None, T)}
    assert partition(_cas("k", b'J{"b": 2, "a": 1}', None, b"J1")) == {0: Outcome("applied", None, T + 1)}
    assert partition(_cas("k", b"J1.0", None)) == {0: Outcome("condition", None, T + 1)}
    assert partition(_cas("k", None, T + 1)) == {0: Outcome("applied", None, T + 2)}
    assert partition(_cas("k", None, None)) == {0: Outcome("condition", None, T + 2)}


def test_expiry_happens_by_event_only(partition: Partition) -> None:
    """A key stays until kv.expire names its version; a set without time to live makes it stay for good."""
    partition(_set("k", ttl=1))
    assert partition.get("k") == (b"J1", T, T + 1000)
    assert [tuple(due) for due in partition.replica.due(T + 1001, 10)] == [("k", T, T + 1000)]
    assert partition.replica.due(T + 1000, 10) == []
    partition(["kv.expire", "k", 0, 0, T - 1], at_us=T + 10**9)
    assert partition.get("k") is not None
    partition(["kv.expire", "k", 0, 0, T], at_us=T + 10**9)
    assert partition.get("k") is None
    assert partition.replica.due(1 << 60, 10) == []
    partition(_set("k", ttl=1), _set("k"))
    assert partition.replica.due(1 << 60, 10) == []
    partition(_set("long" * 120, ttl=5))
    assert [due.key for due in partition.replica.due(1 << 60, 10)] == ["long" * 120]


def test_a_repeated_request_gets_its_outcome_and_does_nothing(partition: Partition) -> None:
    """The second copy, in whatever batch and event, has the first one's outcome."""
    first = partition(_incr("k", 2, by=ANN, seq=7))
    assert first == {0: Outcome("applied", "2", T)}
    assert partition(_incr("k", 2, by=ANN, seq=7), at_us=T + 9) == first
    assert partition(_set("s", b"J1", by=ANN, seq=8)) == {}
    assert partition(_set("s", b"J1", by=ANN, seq=8)) == {0: Outcome("applied", None, T + 9)}
    assert partition(["kv.delete", "s", 0, ANN, 9]) == {}
    assert partition(["kv.delete", "s", 0, ANN, 9]) == {0: Outcome("applied")}
    assert partition(_incr("k", 2, by=BOB, seq=7)) == {0: Outcome("applied", "4", T + 9)}


def test_late_requests_are_superseded_or_forgotten(partition: Partition) -> None:
    """Inside the window it is certain that a lower number was not applied, below it nothing is."""
    partition(_incr("k", by=ANN, seq=1000))
    assert partition(_incr("k", by=ANN, seq=999)) == {0: Outcome("superseded")}
    assert partition(_incr("k", by=ANN, seq=745)) == {0: Outcome("superseded")}
    assert partition(_incr("k", by=ANN, seq=744)) == {0: Outcome("forgotten")}
    assert partition(_set("k", by=ANN, seq=3)) == {0: Outcome("forgotten")}
    assert partition.get("k") == (b"J1", T, 0)


def test_resolve_takes_a_free_number(partition: Partition) -> None:
    """Its answer is final: a late copy of the request finds the number taken."""
    assert partition(["kv.resolve", "k", 0, ANN, 5]) == {0: Outcome("unused")}
    assert partition(_incr("k", by=ANN, seq=5)) == {0: Outcome("unused")}
    assert partition.get("k") is None
    assert partition(_incr("k", by=ANN, seq=6)) == {0: Outcome("applied", "1", T)}
    assert partition(["kv.resolve", "k", 0, ANN, 6]) == {0: Outcome("applied", "1", T)}
    assert partition(["kv.resolve", "k", 0, ANN, 4]) == {0: Outcome("superseded")}
    assert partition(["kv.resolve", "k", 0, 0, None]) == {}


def test_an_mset_is_one_request(partition: Partition) -> None:
    """Consecutive sets with one client and number are decided together, also when they come again."""
    events = [_set(key, by=ANN, seq=1) for key in "abc"]
    assert partition(*events) == {}
    assert partition(*events) == dict.fromkeys(range(3), Outcome("applied"))
    assert partition(_set("a", by=ANN, seq=2), _incr("n", by=ANN, seq=2), _set("b", by=ANN, seq=2)) == {
        1: Outcome("applied", None, T + 1),
        2: Outcome("applied", None, T + 1),
    }


def test_an_mset_is_stored_as_condition_if_one_of_it_was_not_done(partition: Partition) -> None:
    """The next one has its own outcome again."""
    failing = [_set("a", by=ANN, seq=1, mode=2), _set("b", by=ANN, seq=1)]
    fine = [_set("a", by=ANN, seq=2, mode=1), _set("c", by=ANN, seq=2)]
    assert partition(*failing, *fine) == {0: Outcome("condition", None, 0), 2: Outcome("applied", None, T)}
    repeated = partition(*failing, *fine)
    assert [repeated[index].name for index in range(4)] == ["condition", "condition", "applied", "applied"]


def test_events_without_client_or_number_always_apply(partition: Partition) -> None:
    """Nothing can be said about whether they were there before."""
    for events in ([_incr("k", seq=1)], [_incr("k", by=ANN)]):
        before = partition.get("k")
        partition(*events)
        partition(*events)
        assert before is None or partition.get("k") != before
    assert partition.get("k") == (b"J4", T + 3, 0)


def test_requests_go_after_a_day_of_log_time(partition: Partition) -> None:
    """Only log time makes a client's requests forgotten."""
    day = 24 * 3600 * 1_000_000
    partition(_incr("k", by=ANN, seq=5))
    assert partition(_incr("k", by=ANN, seq=5), at_us=T + day) == {0: Outcome("applied", "1", T)}
    assert partition(_incr("k", by=ANN, seq=5), at_us=T + day + 1) == {0: Outcome("applied", "2", T + day + 1)}
    assert partition(_incr("k", by=ANN, seq=4), at_us=T + day + 1) == {0: Outcome("superseded")}
    for hour in range(60):
        partition(["barrier", None, 0, 0], at_us=T + 2 * day + hour * 3600 * 1_000_000)
    assert not any(key[:1] in (b"c", b"o", b"t") for key in partition.state.side.rows)


@pytest.mark.parametrize(
    "event",
    [
        ["kv.frobnicate", "k", 0, 0],
        ["kv.set/2", "k", 0, 0, None, b"J1", None, 0],
        _set("k", mode=3),
        _set("k", b"Xwhat"),
        _set("k", b""),
        _set("k", ttl=0),
        _set("k", ttl=1 << 60),
        _set("k", by=ANN, seq=0),
        _set("k" * 512),
        _set(""),
        _incr("k", by=ANN, seq=-1),
        _cas("k", None, 0, b"1"),
    ],
    ids=lambda event: f"{event[0]}-{str(event[1])[:5]}-{event[4:]}",
)
def test_an_event_that_must_not_be_passed_over_halts_before_its_batch(partition: Partition, event: list[Any]) -> None:
    """Nothing of the batch is applied, nothing after it either, and a copy of it that does not count harms nobody."""
    partition(_set("a"))
    partition(_set("a", b"J2"), event)
    assert partition.replica.problem is not None
    assert not partition.replica.problem.unreadable
    assert "record 1 of dimint.kv/0" in partition.replica.problem.text
    partition(_set("b"))
    assert partition.get("a") == (b"J1", T, 0)
    assert partition.get("b") is None
    assert partition.replica.next_offset == 1
    again = Replica(0, ONE, partition.state)
    assert again.next_offset == 1
    assert again.outcomes_of(b"w" * 16, 2) is None


def test_a_client_id_out_of_bounds_halts(partition: Partition) -> None:
    """Its row would not fit the store."""
    partition(_set("a"), people=(By("x" * 65, "h", "p"),))
    assert partition.replica.problem is not None


def test_foreign_records_are_counted_and_passed_over(partition: Partition) -> None:
    """They are no batches of ours: they change nothing but the count and the position."""
    partition.give(b"hello")
    partition.give(encode(b"w" * 16, 1, 0, PEOPLE, [["kv.incr", "k", 0, 0, None, "1"]]))
    assert partition.replica.problem is None
    assert partition.replica.dead_letters == 2
    assert partition.replica.next_offset == 2
    assert Replica(0, ONE, partition.state).dead_letters == 2


def test_a_damaged_record_stops_the_partition_for_now(partition: Partition) -> None:
    """It is never skipped; once it can be read, the partition goes on."""
    good = encode(b"w" * 16, 1, 0, PEOPLE, [_set("a")])
    partition.give(good[:-1] + bytes((good[-1] ^ 1,)))
    problem = partition.replica.problem
    assert problem is not None
    assert problem.unreadable
    assert partition.replica.next_offset == 0
    partition.replica.problem = None
    partition.replica.apply([partition.records[0]._replace(value=good)])
    assert partition.get("a") == (b"J1", T, 0)


def test_a_digest_is_kept_at_each_multiple_of_4096(partition: Partition) -> None:
    """The first record at or past the multiple counts, also where offsets have holes."""
    partition(_set("a"))
    assert partition.replica.state(caught_up=True).digest_at == 0
    first = partition.replica.digest
    value = encode(b"w" * 16, 2, 0, PEOPLE, [_set("b")])
    partition.replica.apply([Record(KV_TOPIC, 0, 4095, T * 1000, value)])
    assert partition.replica.state(caught_up=True).digest == f"{first:032x}"
    value = encode(b"w" * 16, 3, 0, PEOPLE, [_set("c")])
    partition.replica.apply([Record(KV_TOPIC, 0, 8200, T * 1000, value)])
    state = partition.replica.state(caught_up=True)
    assert (state.digest_at, state.digest) == (8192, f"{partition.replica.digest:032x}")
    assert partition.replica.digest != first


def test_the_digest_is_a_function_of_the_content_alone(partition: Partition) -> None:
    """The same keys, values, versions and expiries give the same digest whatever the way; nothing gives 0."""
    partition(_set("a", b"J1"), _set("b", b"J2", ttl=5))
    other = Partition()
    other(["barrier", None, 0, 0], at_us=5)
    other(_set("b", b"J2", ttl=5, by=ANN, seq=3))
    other(_set("a", b"J1"))
    assert other.replica.digest == partition.replica.digest != 0
    other(["kv.delete", "a", 0, 0, None], ["kv.delete", "b", 0, 0, None])
    assert (other.replica.digest, other.replica.key_count) == (0, 0)
