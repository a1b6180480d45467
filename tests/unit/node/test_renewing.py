"""A rebuilt store takes the live one's place, once, whatever a crash leaves in between."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from dimint.locks import FileLock
from dimint.node.rebuild import is_unfinished, open_unfinished
from dimint.node.renewing import BUILDING, hand_over, take_rebuilt
from dimint.node.store import Store, StoreInUse, rows_of_partitions


def make(directory: Path, row: bytes) -> None:
    with closing(Store(directory)) as store:
        store.partition(0).side.save({b"m": row})
        store.commit()


def row_of(directory: Path) -> bytes | None:
    with closing(Store(directory)) as store:
        return store.partition(0).side.get(b"m")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's directory with an old store, and a new one being built."""
    make(tmp_path / "node", b"old")
    make(tmp_path / "node" / BUILDING, b"new")
    return tmp_path / "node"


def test_whoever_rebuilt_puts_it_in_place_where_no_node_runs(node: Path) -> None:
    """Afterwards only the new store is there."""
    hand_over(node)
    assert row_of(node) == b"new"
    assert sorted(os.listdir(node)) == ["lock", "store"]


def test_a_node_takes_it_while_its_store_is_open(node: Path) -> None:
    """What was not committed of the old one is gone, and the store goes on with the new one."""
    with closing(Store(node)) as store:
        store.partition(0).side.save({b"m": b"uncommitted"})
        os.rename(node / BUILDING, node / "rebuilt")
        assert take_rebuilt(store)
        assert store.partition(0).side.get(b"m") == b"new"
        assert not take_rebuilt(store)


def test_a_crash_in_between_is_put_right(node: Path) -> None:
    """After the first of the two moves the old one is back and the offer stands; after the second the new one stays."""
    os.rename(node / BUILDING, node / "rebuilt")
    os.rename(node / "store", node / "store.old")
    with closing(Store(node)) as store:
        assert store.partition(0).side.get(b"m") == b"old"
        assert take_rebuilt(store)
    assert row_of(node) == b"new"
    (node / "rebuilt").mkdir()
    os.rename(node / "store", node / "keep")
    make(node, b"older")
    os.rename(node / "store", node / "store.old")
    os.rename(node / "keep", node / "store")
    with closing(Store(node)) as store:
        assert not take_rebuilt(store)
        assert store.partition(0).side.get(b"m") == b"new"
    assert sorted(os.listdir(node)) == ["lock", "store"]


def test_only_what_this_code_began_of_this_log_is_gone_on_with(tmp_path: Path) -> None:
    """Another log, or a note that is missing or damaged: the rebuild begins anew."""
    for generation, damage, expected in (
        ("a", "", None),
        ("a", "", b"row"),
        ("b", "", None),
        ("b", "{", None),
        ("b", "", b"row"),
    ):
        if damage:
            (tmp_path / "begun.json").write_text(damage)
        with closing(open_unfinished(tmp_path, generation)) as store:
            assert store.partition(0).side.get(b"m") == expected
            store.partition(0).side.save({b"m": b"row"})
            store.commit()
    assert rows_of_partitions(tmp_path, b"m") == {0: b"row"}
    assert rows_of_partitions(tmp_path, b"other") == {}


def test_a_store_is_noted_before_it_is_made(tmp_path: Path) -> None:
    """A kill while it is made leaves something that the same rebuild goes on with."""
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    with pytest.raises(StoreInUse):
        open_unfinished(tmp_path, "log")
    lock.release()
    assert not (tmp_path / "store").exists()
    assert is_unfinished(tmp_path, "log")
    open_unfinished(tmp_path, "log").close()
    assert is_unfinished(tmp_path, "log")
