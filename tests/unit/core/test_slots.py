"""Keys → slots → partitions."""

from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.genesis import Genesis
from dimint.slots import REMEMBERED_KEYS, Homes, partition_of, slot_of


def test_golden_slots() -> None:
    """These never change: they say where every key of every log lies."""
    slots = {b"": 8366, b"a": 6497, b"1": 8411, "ключ".encode(): 8711}
    for key, slot in slots.items():
        assert slot_of(key, 10_000) == slot == int(md5(key).hexdigest(), 16) % 10_000
        assert partition_of(key, 10_000, 8) == slot * 8 // 10_000


@given(st.binary(max_size=20), st.integers(1, 1 << 20), st.data())
def test_partitions_are_slot_ranges(key: bytes, hash_range: int, data: st.DataObject) -> None:
    """A key's partition is in range and follows from its slot alone."""
    partitions = data.draw(st.integers(1, min(hash_range, 1024)))
    slot = slot_of(key, hash_range)
    assert 0 <= slot < hash_range
    assert partition_of(key, hash_range, partitions) == slot * partitions // hash_range
    assert 0 <= partition_of(key, hash_range, partitions) < partitions


@pytest.mark.parametrize(("hash_range", "partitions"), [(10_000, 8), (10_000, 16), (7, 7), (100, 3), (1, 1)])
def test_partitions_are_of_nearly_equal_size(hash_range: int, partitions: int) -> None:
    """Every partition has slots, and their counts differ by one at most."""
    counts = [0] * partitions
    for slot in range(hash_range):
        counts[slot * partitions // hash_range] += 1
    assert max(counts) - min(counts) <= 1
    assert min(counts) > 0


def test_genesis_places_keys_and_ids() -> None:
    """The genesis uses the same rule, and md5 of the id for status."""
    genesis = Genesis("g", 10_000, 8, 4)
    assert genesis.partition_of_key(b"a") == 6497 * 8 // 10_000
    assert genesis.status_partition("gpu-01") == int(md5(b"gpu-01").hexdigest(), 16) % 4


def test_homes_are_the_keys_partitions_however_many_are_asked_for() -> None:
    homes = Homes(10_000, 8)
    keys = [f"ключ {number}" for number in range(REMEMBERED_KEYS + 10)]
    for key in [*keys, *keys[:10], *keys[-10:]]:
        assert homes[key] == partition_of(key.encode(), 10_000, 8)
        assert len(homes) <= REMEMBERED_KEYS
