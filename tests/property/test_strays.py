"""Batches in partitions that their keys do not belong into: every reader passes over the same ones."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.batch import By, encode
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Record
from dimint.log.reading import Counted, DeadLetter, Intake
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.slots import partition_of, slot_of, slots_of, stray

KEYS = st.text(min_size=1, max_size=8)
FIELDS: dict[str, list[object]] = {"kv.set": [None, b"J1", None, 0], "kv.delete": [None], "kv.incr": [None, 1]}


@given(hash_range=st.integers(1, 300), data=st.data())
def test_partitions_share_the_slots_out(hash_range: int, data: st.DataObject) -> None:
    """Every slot is in one partition, the one that `partition_of` says; `stray` finds the first key outside."""
    partitions = data.draw(st.integers(1, hash_range))
    shares = [slots_of(partition, hash_range, partitions) for partition in range(partitions)]
    assert [slot for share in shares for slot in share] == list(range(hash_range))
    keys = [key.encode() for key in data.draw(st.lists(KEYS, max_size=5))]
    for key in keys:
        assert slot_of(key, hash_range) in shares[partition_of(key, hash_range, partitions)]
    for partition, share in enumerate(shares[:5]):
        outside = [key for key in keys if partition_of(key, hash_range, partitions) != partition]
        assert stray(keys, share, hash_range) == (outside[0] if outside else None)


@given(
    partitions=st.integers(1, 4),
    batches=st.lists(st.tuples(st.lists(st.sampled_from("abcdefgh"), max_size=3), st.booleans()), max_size=12),
    ours=st.integers(0, 3),
)
def test_stores_and_streams_pass_over_the_same(partitions: int, batches: list[tuple[list[str], bool]], ours: int) -> None:
    """A store fed all batches is that of a log without the strays, and an intake counts the batches that the store has
    applied, in whatever order strays and repeated batches come."""
    genesis = Genesis("g", 16, partitions, 1)
    partition = ours % partitions
    numbers = iter(range(1, 100))
    records, sound = [], []
    for offset, (keys, repeats) in enumerate(batches):
        number = 1 if repeats else next(numbers)
        events = [["kv.incr", key, 0, 0, None, 1] for key in keys]
        value = encode(b"w" * 16, number, 0, (By(None, "h", "p"),), events)
        records.append(Record(KV_TOPIC, partition, offset, 1000, value))
        if all(genesis.partition_of_key(key.encode()) == partition for key in keys):
            sound.append(records[-1])
    store, without = Replica(partition, genesis, MemoryState()), Replica(partition, genesis, MemoryState())
    intake = Intake(KV_TOPIC, partition, genesis)
    store.apply(records)
    without.apply(sound)
    taken = [intake.take(record) for record in records]
    assert store.problem is None
    assert store.digest == without.digest
    assert store.next_offset == len(records)
    dead = [each for each in taken if isinstance(each, DeadLetter)]
    assert store.dead_letters == len(dead) == len(records) - len(sound)
    counted = [event[1] for each in taken if isinstance(each, Counted) for event in each.events]
    assert {found.key: int(found.value[1:]) for found in store.get(sorted(set(counted)))} == {
        key: counted.count(key) for key in counted
    }


@given(
    batches=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["kv.set", "kv.delete", "kv.incr"]), st.sampled_from("abcdefgh")), min_size=1, max_size=3
        ),
        max_size=12,
    ),
    cuts=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=4),
)
def test_what_a_store_has_hides_no_stray(batches: list[list[tuple[str, str]]], cuts: list[tuple[int, bool]]) -> None:
    """A store asks only about keys that it does not have, saved or not, removed or not, and finds the strays that an intake
    finds that asks about all of them."""
    genesis = Genesis("g", 16, 2, 1)
    records = []
    for offset, batch in enumerate(batches):
        value = encode(b"w" * 16, offset + 1, 0, (By(None, "h", "p"),), [[kind, key, 0, 0, *FIELDS[kind]] for kind, key in batch])
        records.append(Record(KV_TOPIC, 0, offset, 1000, value))
    intake = Intake(KV_TOPIC, 0, genesis)
    taken = [intake.take(record) for record in records]
    store, without = Replica(0, genesis, MemoryState()), Replica(0, genesis, MemoryState())
    for cut, saved in [*sorted(cuts), (len(records), True)]:
        store.advance(records[store.next_offset : cut])
        if saved:
            store.save()
    without.apply([record for record, each in zip(records, taken, strict=True) if isinstance(each, Counted)])
    assert store.dead_letters == intake.dead_letters.total()
    assert (store.digest, store.key_count) == (without.digest, without.key_count)
    assert store.fits_its_rows()
