"""The LMDB store: a table like the reference, atomic, locked, growing, and honest about having no room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.errors import SettingsError, StoreFull
from dimint.node.state import MemoryState, State
from dimint.node.store import FORMAT, Store, StoreInUse


@pytest.fixture(params=["memory", "lmdb"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    """A partition's tables of either kind."""
    if request.param == "memory":
        yield MemoryState()
        return
    store = Store(tmp_path / "node")
    yield store.partition(3)
    store.close()


def test_tables_keep_rows_in_order(state: State) -> None:
    """Rows are got, loaded, scanned, replaced and removed alike in both kinds, and the two tables are apart."""
    table = state.data
    table.save({b"b": b"1", b"a": b"", b"\xff" * 511: b"long", b"ab": b"2"})
    assert (table.get(b"a"), table.get(b"none")) == (b"", None)
    assert table.load([b"a", b"b", b"none"]) == {b"a": b"", b"b": b"1"}
    assert [key for key, _ in table.scan(b"", b"", 10)] == [b"a", b"ab", b"b", b"\xff" * 511]
    assert list(table.scan(b"ab", b"a", 10)) == [(b"ab", b"2")]
    assert list(table.scan(b"a", b"", 2)) == [(b"a", b""), (b"ab", b"2")]
    assert list(table.scan(b"\xff" * 511 + b"\xff", b"", 2)) == []
    table.save({b"a": b"new", b"b": None, b"never there": None})
    assert table.load([b"a", b"b"]) == {b"a": b"new"}
    assert list(state.side.scan(b"", b"", 10)) == []
    state.side.save({})


def test_what_is_not_committed_is_gone(tmp_path: Path) -> None:
    """Reads see what was saved at once; a store that is opened again has what was committed, of all partitions alike."""
    store = Store(tmp_path)
    store.partition(0).data.save({b"a": b"1"})
    store.partition(1).side.save({b"a": b"1"})
    store.commit()
    store.partition(0).data.save({b"a": b"2"})
    store.partition(1).side.save({b"a": b"2"})
    assert store.partition(0).data.get(b"a") == b"2"
    store.close()
    store = Store(tmp_path)
    assert (store.partition(0).data.get(b"a"), store.partition(1).side.get(b"a")) == (b"1", b"1")
    assert store.partitions() == [0, 1]
    store.drop(1)
    assert store.partitions() == [0]
    assert store.partition(1).side.get(b"a") is None
    store.close()


def test_a_directory_has_one_store(tmp_path: Path) -> None:
    """A second one is refused in one line, until the first is closed."""
    store = Store(tmp_path)
    with pytest.raises(StoreInUse, match="in use by another node"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """Nothing is read from a store that another program wrote."""
    import lmdb

    Store(tmp_path).close()
    with lmdb.open(str(tmp_path / "store"), max_dbs=4) as env:
        about = env.open_db(b"about")
        with env.begin(write=True) as txn:
            assert txn.get(b"format", db=about) == FORMAT
            txn.put(b"format", b"99", db=about)
    with pytest.raises(SettingsError, match="store format 99, this program knows 1"):
        Store(tmp_path)


def test_the_map_grows_as_needed(tmp_path: Path) -> None:
    """Far more fits than the map that the store starts with."""
    store = Store(tmp_path, map_bytes=1 << 20)
    for number in range(100):
        store.partition(0).data.save({b"%03d" % number: b"x" * 100_000})
        store.commit()
    store.close()
    store = Store(tmp_path, map_bytes=1 << 20)
    assert len(list(store.partition(0).data.scan(b"", b"", 1000))) == 100
    store.close()


def test_no_room_is_said_and_costs_only_what_was_not_committed(tmp_path: Path) -> None:
    """After StoreFull and an abort the committed rows are there, and smaller changes still go."""
    store = Store(tmp_path, map_bytes=1 << 20, map_max_bytes=1 << 20)
    table = store.partition(0).data
    table.save({b"a": b"1"})
    store.commit()
    with pytest.raises(StoreFull, match="no room"):
        table.save({b"%03d" % number: b"x" * 100_000 for number in range(100)})
    store.abort()
    assert list(table.scan(b"", b"", 10)) == [(b"a", b"1")]
    table.save({b"a": b"2"})
    store.commit()
    store.close()


def test_another_store_takes_the_place(tmp_path: Path) -> None:
    """A store that was built beside replaces the live one, also when the program died in between."""
    live, other = Store(tmp_path / "live"), Store(tmp_path / "other")
    live.partition(0).data.save({b"a": b"old"})
    live.commit()
    other.partition(0).data.save({b"a": b"new"})
    other.commit()
    other.close()
    live.replace_by(tmp_path / "other")
    assert live.partition(0).data.get(b"a") == b"new"
    live.close()
    (tmp_path / "live" / "store").rename(tmp_path / "live" / "store.old")
    live = Store(tmp_path / "live")
    assert live.partition(0).data.get(b"a") == b"new"
    live.close()


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    """On a file system that is really full: StoreFull, committed rows stay, small changes still go."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        store = Store(tmp_path / "node")
        table = store.partition(0).data
        rows = 0

        def fill() -> None:
            nonlocal rows
            while rows < 200:
                table.save({b"%03d" % rows: b"x" * 100_000})
                store.commit()
                rows += 1

        with pytest.raises(StoreFull, match="the disk is full"):
            fill()
        store.abort()
        assert len(list(table.scan(b"", b"", 1000))) == rows
        table.save({b"small": b"1"})
        store.commit()
        store.close()
        store = Store(tmp_path / "node")
        assert len(list(store.partition(0).data.scan(b"", b"", 1000))) == rows + 1
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
