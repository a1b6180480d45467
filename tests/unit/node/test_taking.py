"""Snapshots from store to store, whole, cut, damaged, refused, and what comes of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from dimint.batch import By, encode
from dimint.clock import ManualClock
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.limits import SNAPSHOT_PART_MAX_BYTES, SNAPSHOTS_MAX
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import Entry, TopicSpec
from dimint.node.building import SnapshotBuilder
from dimint.node.giving import KEEP_S, TAKEN_S, Giving
from dimint.node.holdings import SNAPSHOT_FROM_RECORDS, Holdings
from dimint.node.peering import Done, FromHolder, FromTaker, Making, Offer, Part, Refused, Take, Want
from dimint.node.store import Store
from dimint.node.taking import AGAIN_S, WINDOW_PARTS, Taking
from tests.support.placing import placed

PARTITIONS = 6
GENESIS = Genesis("one", 10_000, PARTITIONS, 1)
KEY = placed("key 0001", 0, GENESIS)
Change = Callable[[FromHolder], FromHolder | None]


class World:
    """A log in memory with records of 204 keys, four of them large."""

    def __init__(self) -> None:
        self.log = MemoryLog(MemoryBroker(clock=ManualClock(), generation="one"))
        self.log.create([TopicSpec(KV_TOPIC, PARTITIONS)])
        self.genesis = GENESIS
        self.numbers = [0] * PARTITIONS
        for number in range(2 * SNAPSHOT_FROM_RECORDS):
            self.write(0, f"key {number:04d}", b"J" + str(number).encode())
        for number in range(4):  # so random that no compression makes them fit one part
            self.write(0, f"large {number}", b"M" + Random(number).randbytes(300_000))

    def write(self, partition: int, key: str, value: bytes) -> None:
        self.numbers[partition] += 1
        event = ["kv.set", placed(key, partition, self.genesis), 0, 0, None, value, None, 0]
        record = encode(b"w" * 16, self.numbers[partition], 0, (By(None, "h", "p"),), [event])
        self.log.append([Entry(KV_TOPIC, partition, record)])


class Member:
    """One node's store, and what stands between it and others. Messages are carried by `exchange` below."""

    def __init__(self, world: World, directory: Path, *, peers: tuple[str, ...] = (), map_max_bytes: int = 1 << 40) -> None:
        self.world = world
        self.store = Store(directory, map_bytes=1 << 20, map_max_bytes=map_max_bytes)
        self.holdings = Holdings(
            self.store, world.log, world.genesis, moved_positions=lambda: None, has_peers=lambda _partition: bool(self.peers)
        )
        self.peers = peers
        self.now = 0.0
        self.giving = Giving(self.store, world.genesis, has=self.lacks)
        self.taking = Taking("one", PARTITIONS, SnapshotBuilder(self.store, world.log, self.holdings))
        self.thread = threading.Thread(target=self.giving.run)
        self.thread.start()

    def lacks(self, partition: int) -> str | None:
        return None if self.holdings.caught_up(partition) else "it is not caught up itself"

    def catch_up(self) -> None:
        for place, offset in self.holdings.positions().items():
            while self.holdings.replicas[place.partition].next_offset < self.world.log.bounds(*place).end:
                offset = self.holdings.replicas[place.partition].next_offset
                self.holdings.apply(self.world.log.read(*place, offset), 0.0)
        self.holdings.commit(0.0)

    def digest(self, partition: int = 0) -> int:
        return self.holdings.replicas[partition].digest

    def close(self) -> None:
        self.giving.stop()
        self.thread.join()
        self.giving.close()
        self.store.close()


def exchange(
    taker: Member, givers: dict[str, Member], *, change: Change = lambda message: message, now: float = 0.0, most: int = 10_000
) -> float:
    """Carry messages until the taker has nothing left to build; the time it is then. `change` sees what givers say."""
    now = max(now, taker.now)
    for _ in range(most):
        taker.now = now
        taker.holdings.end_turn(now)
        taker.taking.tick(now, lambda _partition: taker.peers)
        sent = taker.taking.take()
        for peer, message in sent:
            answer = givers[peer].giving.answer(message, now) if peer in givers else None
            answer = None if answer is None else change(answer)
            if answer is not None:
                taker.taking.received(peer, answer, now)
                if isinstance(answer, Making):
                    time.sleep(0.02)
        if not taker.holdings.awaited():
            return now
        now += 0.0 if sent else 0.25
    raise AssertionError("it takes for ever")


@pytest.fixture
def world() -> World:
    return World()


@contextmanager
def members(world: World, directory: Path, *, peers: tuple[str, ...] = ("a",)) -> Iterator[tuple[Member, Member]]:
    """A node that has partition 0, and one that has nothing yet."""
    with ExitStack() as stack:
        giver = stack.enter_context(closing(Member(world, directory / "giver")))
        giver.holdings.hold(frozenset({0}), 0.0)
        giver.catch_up()
        taker = stack.enter_context(closing(Member(world, directory / "taker", peers=peers)))
        yield giver, taker


def test_a_snapshot_and_the_tail_make_the_same_replica(world: World, tmp_path: Path) -> None:
    """Position, keys, dedupe and digest come over; what was written meanwhile is read from the log."""
    with members(world, tmp_path) as (giver, taker):
        taker.holdings.hold(frozenset({0}), 0.0)
        assert taker.holdings.replicas == {}
        exchange(taker, {"a": giver})
        assert taker.digest() == giver.digest()
        assert taker.holdings.positions() == giver.holdings.positions()
        world.write(0, KEY, b"J-1")
        for member in (giver, taker):
            member.catch_up()
        assert taker.digest() == giver.digest()
        assert taker.holdings.caught_up(0)
        world.numbers[0] -= 1  # the same batch number again: counted by neither
        world.write(0, KEY, b"J-2")
        for member in (giver, taker):
            member.catch_up()
        assert taker.holdings.replicas[0].get([KEY])[0].value == b"J-1"
        assert taker.digest() == giver.digest()


def test_what_was_taken_is_still_there_after_a_restart(world: World, tmp_path: Path) -> None:
    """The position is committed with the rows."""
    with members(world, tmp_path) as (giver, taker):
        taker.holdings.hold(frozenset({0}), 0.0)
        exchange(taker, {"a": giver})
        digest = taker.digest()
        taker.store.abort()
        with closing(_again(taker)) as again:
            again.holdings.hold(frozenset({0}), 0.0)
            assert again.digest() == digest


def _again(member: Member) -> Member:
    member.close()
    return Member(member.world, member.store.directory, peers=member.peers)


def flipped(message: FromHolder) -> FromHolder:
    if isinstance(message, Part) and message.offset:
        return Part(message.id, message.offset, message.data[:-1] + bytes((message.data[-1] ^ 1,)))
    return message


def moved(message: FromHolder) -> FromHolder:
    return Part(message.id, message.offset + 1, message.data) if isinstance(message, Part) else message


def empty(message: FromHolder) -> FromHolder:
    return Part(message.id, message.offset, b"") if isinstance(message, Part) else message


def longer(message: FromHolder) -> FromHolder:
    return Offer(message.partition, message.id, message.size + 1) if isinstance(message, Offer) else message


def shorter(message: FromHolder) -> FromHolder:
    return Offer(message.partition, message.id, message.size - 1) if isinstance(message, Offer) else message


def of_another_partition(message: FromHolder) -> FromHolder:
    return Part(message.id, 0, _other_snapshot()) if isinstance(message, Part) else message


def _other_snapshot() -> bytes:
    from dimint.snapshot import Header
    from dimint.snapshot import encode as encode_snapshot

    return b"".join(encode_snapshot(Header(KV_TOPIC, 1, "one", 0, 0, b"1", PARTITIONS, 10_000), [], []))


def cut(message: FromHolder) -> FromHolder | None:
    return None if isinstance(message, Part) and message.offset else message


def refused(message: FromHolder) -> FromHolder:
    return Refused(0, "no")


@pytest.mark.parametrize("change", [flipped, moved, empty, longer, shorter, of_another_partition, cut, refused])
def test_a_bad_snapshot_is_replaced_by_another_peers(world: World, tmp_path: Path, change: Change) -> None:
    """Damaged, cut or other parts, another length, another partition, silence, a refusal: the next peer is asked."""
    asked: list[FromHolder] = []

    def first_is_bad(message: FromHolder) -> FromHolder | None:
        asked.append(message)
        return change(message) if taker.taking.peer == "a" else message

    with members(world, tmp_path, peers=("a", "b")) as (giver, taker):
        taker.holdings.hold(frozenset({0}), 0.0)
        exchange(taker, {"a": giver, "b": giver}, change=first_is_bad)
        assert taker.digest() == giver.digest()
        assert any(change(message) != message for message in asked)
        assert taker.holdings.replicas[0].next_offset == giver.holdings.replicas[0].next_offset


@pytest.mark.parametrize("change", [flipped, cut, refused])
def test_without_a_good_peer_the_log_is_read(
    world: World, tmp_path: Path, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the bad snapshot stays; the log's start is where reading begins."""
    with caplog.at_level("INFO"), members(world, tmp_path) as (giver, taker):
        taker.holdings.hold(frozenset({0}), 0.0)
        exchange(taker, {"a": giver}, change=change)
        assert taker.holdings.replicas[0].next_offset == 0
        assert "is read from the start of the log: a: " in caplog.text
        taker.catch_up()
        assert taker.digest() == giver.digest()


def test_a_trimmed_log_needs_a_peer_and_waits_for_one(world: World, tmp_path: Path) -> None:
    """Without one it says what is lacking and asks again; with one it is built, whatever the log lacks."""
    world.log.trim(KV_TOPIC, 0, 0)
    with members(world, tmp_path, peers=()) as (giver, taker):
        world.log.trim(KV_TOPIC, 0, 100)
        taker.holdings.hold(frozenset({0}), 0.0)
        with pytest.raises(AssertionError, match="for ever"):
            exchange(taker, {"a": giver}, most=20)
        (state,) = taker.holdings.states(0.0)
        assert state.problem is not None
        assert "starts at 100: a snapshot of a node that has it is needed" in state.problem
        taker.peers = ("a",)
        exchange(taker, {"a": giver}, now=100.0)
        assert taker.digest() == giver.digest()
        assert taker.holdings.states(0.0)[0].problem is None


def test_a_snapshot_from_before_the_logs_start_is_of_no_use(world: World, tmp_path: Path) -> None:
    """What was trimmed after the peer's position is missing in between."""
    with members(world, tmp_path) as (giver, taker):
        for number in range(10):
            world.write(0, f"later {number}", b"J1")
        world.log.trim(KV_TOPIC, 0, world.log.bounds(KV_TOPIC, 0).end - 1)
        taker.holdings.hold(frozenset({0}), 0.0)
        with pytest.raises(AssertionError, match="for ever"):
            exchange(taker, {"a": giver}, most=200)
        assert "its snapshot ends at 204" in str(taker.holdings.states(0.0)[0].problem)


def test_half_a_snapshot_counts_as_nothing(world: World, tmp_path: Path) -> None:
    """A node that ends in the middle begins anew, and takes no row of the half for granted."""
    with members(world, tmp_path) as (giver, taker):
        taker.holdings.hold(frozenset({0}), 0.0)
        with pytest.raises(AssertionError, match="for ever"):
            exchange(taker, {"a": giver}, change=cut, most=15)
        taker.store.commit()
        assert taker.store.partitions() == [0]
        with closing(_again(taker)) as again:
            again.peers = ()
            again.holdings.hold(frozenset({0}), 0.0)
            assert again.holdings.replicas[0].next_offset == 0
            assert again.holdings.replicas[0].get([KEY]) == []


def test_a_partition_that_is_not_wanted_any_more_is_let_go(world: World, tmp_path: Path) -> None:
    """In the middle of the snapshot the assignment changes: the giver is told, nothing goes on."""
    with members(world, tmp_path) as (giver, taker):
        taker.holdings.hold(frozenset({0}), 0.0)
        with pytest.raises(AssertionError, match="for ever"):
            exchange(taker, {"a": giver}, change=cut, most=15)
        assert taker.taking.peer == "a"
        taker.holdings.hold(frozenset(), 0.0)
        taker.taking.tick(1.0, lambda _partition: taker.peers)
        assert [type(message) for _, message in taker.taking.take()] == [Done]
        assert taker.taking.peer is None


def test_a_full_store_begins_again_when_there_is_room(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that did not fit are not half there: the snapshot is taken again from its start."""
    with (
        members(world, tmp_path) as (giver, _),
        closing(Member(world, tmp_path / "small", peers=("a",), map_max_bytes=1 << 20)) as taker,
    ):
        taker.holdings.hold(frozenset({0}), 0.0)
        with pytest.raises(AssertionError, match="for ever"):
            exchange(taker, {"a": giver}, most=60)
        assert "no room" in caplog.text
        assert taker.holdings.replicas == {}
        taker.store.abort()
        taker.store._map_max_bytes = 1 << 30
        exchange(taker, {"a": giver})
        assert taker.digest() == giver.digest()


def test_parts_are_asked_for_a_few_at_a_time(world: World, tmp_path: Path) -> None:
    """A slow taker has no more than a window under way, and no more than one snapshot."""
    for number in range(3):
        world.write(0, f"noise {number}", b"M" + Random(number).randbytes(1_000_000))
    with members(world, tmp_path) as (giver, taker):
        for number in range(SNAPSHOT_FROM_RECORDS):
            world.write(1, f"{number}", b"J1")
        taker.holdings.hold(frozenset({0, 1}), 0.0)
        sent: list[FromTaker] = []
        offered = None
        for _ in range(500):
            taker.taking.tick(0.0, lambda _partition: taker.peers)
            sent += [message for _, message in taker.taking.take()]
            if offered is None:
                answer = giver.giving.answer(Take(0, "one"), 0.0)
                if isinstance(answer, Offer):
                    offered = answer
                    taker.taking.received("a", answer, 0.0)
                else:
                    time.sleep(0.01)
        wants = [message for message in sent if isinstance(message, Want)]
        assert len(wants) == WINDOW_PARTS
        assert all(want.size == SNAPSHOT_PART_MAX_BYTES for want in wants)
        assert {message.partition for message in sent if isinstance(message, Take)} == {0}


def test_a_giver_keeps_few_snapshots_and_not_for_long(world: World, tmp_path: Path) -> None:
    """More takers wait; what nobody asks for goes from the disk; what was never offered is refused."""
    with closing(Member(world, tmp_path / "giver")) as giver:
        for partition in range(1, PARTITIONS):
            world.write(partition, "k", b"J1")
        giver.holdings.hold(frozenset(range(PARTITIONS)), 0.0)
        giver.catch_up()
        offers = []
        for partition in range(SNAPSHOTS_MAX):
            while not isinstance(answer := giver.giving.answer(Take(partition, "one"), 0.0), Offer):
                assert answer == Making(partition)
                time.sleep(0.01)
            offers.append(answer)
        assert giver.giving.answer(Take(SNAPSHOTS_MAX, "one"), 0.0) == Making(SNAPSHOTS_MAX)
        folder = giver.store.directory / "snapshots"
        assert len(list(folder.iterdir())) == SNAPSHOTS_MAX
        assert isinstance(giver.giving.answer(Want(offers[0].id, 0, 10), KEEP_S / 2), Part)
        giver.giving.tick(KEEP_S)
        assert len(list(folder.iterdir())) == 1
        assert isinstance(giver.giving.answer(Want(offers[1].id, 0, 10), KEEP_S), Refused)
        for want in (
            Want(offers[0].id, -1, 10),
            Want(offers[0].id, 0, 0),
            Want(offers[0].id, offers[0].size, 1),
            Want(offers[0].id, 1 << 62, 1),
            Want(99, 0, 1),
        ):
            assert isinstance(giver.giving.answer(want, KEEP_S), Refused), want
        whole = giver.giving.answer(Want(offers[0].id, 0, 1 << 40), KEEP_S)
        assert isinstance(whole, Part)
        assert len(whole.data) <= SNAPSHOT_PART_MAX_BYTES


def test_a_snapshot_that_was_taken_makes_room_for_the_next_one(world: World, tmp_path: Path) -> None:
    """A node that takes over many partitions waits for none to get old; what somebody else is at stays meanwhile."""
    with closing(Member(world, tmp_path / "giver")) as giver:
        for partition in range(1, PARTITIONS):
            world.write(partition, "k", b"J1")
        giver.holdings.hold(frozenset(range(PARTITIONS)), 0.0)
        giver.catch_up()

        def take(partition: int, now: float) -> Offer:
            while not isinstance(answer := giver.giving.answer(Take(partition, "one"), now), Offer):
                assert answer == Making(partition)
                time.sleep(0.01)
            return answer

        offers = [take(partition, 0.0) for partition in range(SNAPSHOTS_MAX)]
        assert giver.giving.answer(Done(offers[0].id), 0.1) is None
        assert giver.giving.answer(Take(SNAPSHOTS_MAX, "one"), 0.1) == Making(SNAPSHOTS_MAX)
        assert isinstance(giver.giving.answer(Want(offers[0].id, 0, 10), TAKEN_S), Part), "another taker is at it"
        assert giver.giving.answer(Take(SNAPSHOTS_MAX, "one"), TAKEN_S + 0.1) == Making(SNAPSHOTS_MAX)
        assert len(giver.giving._files) == SNAPSHOTS_MAX
        assert isinstance(giver.giving.answer(Want(offers[1].id, 0, 10), 2 * TAKEN_S), Part), "nobody has had this one"
        take(SNAPSHOTS_MAX, 2 * TAKEN_S)
        assert isinstance(giver.giving.answer(Want(offers[0].id, 0, 10), 2 * TAKEN_S), Refused)
        assert isinstance(giver.giving.answer(Want(offers[1].id, 0, 10), 2 * TAKEN_S), Part)


def test_no_snapshot_is_given_of_what_is_not_whole(world: World, tmp_path: Path) -> None:
    """Another log's, a partition that is not held or not caught up, or one whose rows lost a bit."""
    with members(world, tmp_path) as (giver, taker):
        assert isinstance(giver.giving.answer(Take(0, "two"), 0.0), Refused)
        assert isinstance(giver.giving.answer(Take(1, "one"), 0.0), Refused)
        assert isinstance(giver.giving.answer(Take(-1, "one"), 0.0), Refused)
        giver.store.partition(0).data.save({KEY.encode(): bytes(16) + b"J7"})
        giver.store.commit()
        taker.holdings.hold(frozenset({0}), 0.0)
        exchange(taker, {"a": giver})
        assert taker.holdings.replicas[0].next_offset == 0


def test_peers_are_asked_again_after_a_while(world: World, tmp_path: Path) -> None:
    """With a trimmed log a peer that refused once may have it later."""
    with members(world, tmp_path) as (giver, taker):
        world.log.trim(KV_TOPIC, 0, 10)
        taker.holdings.hold(frozenset({0}), 0.0)
        with pytest.raises(AssertionError, match="for ever"):
            exchange(taker, {"a": giver}, change=refused, most=4)
        assert taker.taking.next_time(0.5) == pytest.approx(AGAIN_S - 0.5, abs=0.5)
        exchange(taker, {"a": giver}, now=10.0)
        assert taker.digest() == giver.digest()
