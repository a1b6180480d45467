"""A node's partitions in one LMDB environment; the only importer of lmdb.

One environment a node, two named databases a partition ("d" and "s" + number: data and side table), one named "about" with
the store's format. Everything between two commits is one transaction over all partitions: data, position, dedupe, digest.
What a crash leaves is an exact prefix of the log; without meta sync it may be an older one, which is read again.

One thread owns a store. Reads go to the open write transaction, so they see what was applied and not yet committed. The
map grows between transactions only. A full disk or map raises StoreFull: the transaction is gone, every replica over it
must be made again from what was committed.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from dimint.errors import SettingsError, StoreError, StoreFull
from dimint.limits import PARTITIONS_MAX
from dimint.locks import FileLock
from dimint.node.state import State

__all__ = [
    "FORMAT",
    "Frozen",
    "Interrupted",
    "MapFull",
    "Store",
    "StoreInUse",
    "copy_store",
    "frozen_store",
    "rows_of_partitions",
]

FORMAT: Final = b"1"
MAP_BYTES: Final = 1 << 32
MAP_MAX_BYTES: Final = 1 << 43
"""Largest map: address space, not memory or disk."""
_ROOM_BYTES: Final = 1 << 30
"""The map grows before a transaction would find less room than this (or a quarter of a small map): changed pages are
copied, so a few bytes cost a whole page."""
_DISK_FULL_BYTES: Final = 16 << 20
_HINT: Final = "make room; the node goes on by itself"


class StoreInUse(SettingsError):
    """Another node has the directory."""


class MapFull(StoreFull):
    """The transaction is larger than the room in the map: `Store.grow` may help."""


class Interrupted(Exception):
    """A frozen partition cannot be read on: its store has to grow, or is closed."""


class Store:
    """The store in `directory` (made if need be), locked against a second node.

    Raises StoreInUse if another node has it, SettingsError if it is of an unknown format.
    """

    def __init__(self, directory: Path, *, map_bytes: int = MAP_BYTES, map_max_bytes: int = MAP_MAX_BYTES) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(directory / "lock")
        if not self._lock.acquire():
            raise StoreInUse(f"{directory} is in use by another node", hint="stop that one or give this one another name")
        self._map_bytes, self._map_max_bytes = map_bytes, map_max_bytes
        self._env: Any = None
        self._txn: Any = None
        self._states: dict[int, LmdbState] = {}
        self._frozen = threading.Lock()
        self._wants_all = False
        self.uncommitted_bytes = 0
        """Bytes saved since the last commit, keys and rows."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def partition(self, partition: int) -> State:
        """The tables of a partition, made if they are not there. Commits what is open if they have to be made."""
        state = self._states.get(partition)
        if state is None:
            self.commit()
            with _translated(self.directory):
                names = [f"{letter}{partition}".encode() for letter in "ds"]
                state = self._states[partition] = LmdbState(*(LmdbTable(self, self._env.open_db(name)) for name in names))
        return state

    def partitions(self) -> list[int]:
        """Numbers of the partitions that have tables with something in them."""
        txn = self.transaction()
        found = []
        with txn.cursor() as cursor:
            names = [bytes(name) for name in cursor.iternext(values=False)]
        for name in names:
            if name[:1] == b"s" and name[1:].isdigit():
                state = self.partition(int(name[1:]))
                if state.side.scan(b"", b"", 1) or state.data.scan(b"", b"", 1):
                    found.append(int(name[1:]))
        return sorted(found)

    def drop(self, partition: int) -> None:
        """Empty a partition's tables and commit."""
        state = self._states.get(partition) or self.partition(partition)
        assert isinstance(state, LmdbState)
        txn = self.transaction()
        with _translated(self.directory):
            for table in (state.data, state.side):
                txn.drop(table.database, delete=False)
        self.commit()

    def commit(self) -> None:
        """Make everything saved durable (but for the newest meta page). Raises StoreFull."""
        txn, self._txn = self._txn, None
        if txn is None:
            return
        if self.uncommitted_bytes:
            self.uncommitted_bytes = 0
            with _translated(self.directory):
                txn.commit()
        else:
            txn.commit()

    def abort(self) -> None:
        """Forget everything since the last commit."""
        txn, self._txn = self._txn, None
        self.uncommitted_bytes = 0
        if txn is not None:
            txn.abort()

    def release(self) -> None:
        """Hold no transaction while waiting if nothing is saved in it."""
        if not self.uncommitted_bytes:
            self.abort()

    def replace_by(self, other: Path) -> None:
        """Put a store that was built in the directory `other`, and closed, in the place of this one."""
        self.abort()
        self._states.clear()
        with self._alone():
            self._env.close()
            self._env = None
        old = self.directory / "store.old"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(self.directory / "store", old)
        os.rename(other / "store", self.directory / "store")
        self._open()

    @contextmanager
    def frozen(self, partition: int) -> Iterator["Frozen"]:
        """A partition as it was committed last, whatever is done meanwhile. From any thread, one at a time.

        Be quick: what is replaced meanwhile stays on the disk. Raises Interrupted when the store cannot wait.
        """
        state = self._states.get(partition)
        if state is None:
            raise Interrupted(f"partition {partition} is not open")
        with self._frozen:
            if self._wants_all or self._env is None:
                raise Interrupted("the store is busy")
            with _translated(self.directory), self._env.begin(write=False) as txn:
                databases = (state.data.database, state.side.database)
                yield Frozen(txn, *databases, interrupted=lambda: self._wants_all)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody reads what is frozen."""
        self._wants_all = True
        with self._frozen:
            self._wants_all = False
            yield

    def close(self) -> None:
        """Drop what is not committed, let others have the directory. Idempotent."""
        self.abort()
        if self._env is not None:
            with self._alone():
                self._env.close()
                self._env = None
        self._lock.release()

    def transaction(self) -> Any:
        """The open write transaction."""
        txn = self._txn
        if txn is None:
            self._keep_room()
            with _translated(self.directory):
                txn = self._txn = self._env.begin(write=True)
        return txn

    def _open(self) -> None:
        path = self.directory / "store"
        old = self.directory / "store.old"
        if old.exists() and not path.exists():
            os.rename(old, path)  # a crash in the middle of replace_by
        shutil.rmtree(old, ignore_errors=True)
        path.mkdir(exist_ok=True)
        with _translated(self.directory):
            self._env = lmdb.open(
                str(path),
                map_size=max(self._map_bytes, _file_bytes(path)),
                max_dbs=2 * PARTITIONS_MAX + 1,
                metasync=False,
                sync=True,
                max_readers=16,
            )
            about = self._env.open_db(b"about")
            with self._env.begin(write=True) as txn:
                found = txn.get(b"format", db=about)
                if found is None:
                    txn.put(b"format", FORMAT, db=about)
        if found not in (None, FORMAT):
            raise SettingsError(
                f"{path} has store format {bytes(found)[:20].decode(errors='replace')}, this program knows {FORMAT.decode()}",
                hint="use the program that wrote it, or remove the directory: it is rebuilt from the log",
            )

    def grow(self) -> bool:
        """Double the map, for a transaction that did not fit; False if it may not grow. Forgets what is not committed."""
        self.abort()
        size: int = self._env.info()["map_size"]
        if size >= self._map_max_bytes:
            return False
        with self._alone(), _translated(self.directory):
            self._env.set_mapsize(min(size * 2, self._map_max_bytes))
        return True

    def _keep_room(self) -> None:
        info = self._env.info()
        size: int = info["map_size"]
        if size - info["last_pgno"] * 4096 < min(_ROOM_BYTES, size // 4):
            self.grow()


@contextmanager
def _looked_into(directory: Path) -> Iterator[Any]:
    """A node's store for reading only, while the node goes on. Raises StoreError."""
    with _translated(directory):
        source = lmdb.open(str(directory / "store"), readonly=True, max_dbs=2 * PARTITIONS_MAX + 1)
        try:
            yield source
        finally:
            source.close()


def copy_store(directory: Path, into: Path) -> None:
    """A copy of a node's store as its last commit left it, while the node goes on. Raises StoreError."""
    (into / "store").mkdir(parents=True)
    with _looked_into(directory) as source:
        source.copy(str(into / "store"), compact=True)


@contextmanager
def frozen_store(directory: Path) -> Iterator[dict[int, "Frozen"]]:
    """Every partition with something in it as the last commit of a node's store left it, while the node goes on.

    Be quick: what is replaced meanwhile stays on the disk. Raises StoreError.
    """
    with _looked_into(directory) as source, source.begin() as txn:
        with txn.cursor() as cursor:
            names = [bytes(name) for name in cursor.iternext(values=False)]
        found = {}
        for partition in sorted(int(name[1:]) for name in names if name[:1] == b"s" and name[1:].isdigit()):
            databases = [source.open_db(f"{letter}{partition}".encode(), txn=txn, create=False) for letter in "ds"]
            if any(txn.stat(database)["entries"] for database in databases):
                found[partition] = Frozen(txn, *databases)
        yield found


def rows_of_partitions(directory: Path, key: bytes) -> dict[int, bytes]:
    """The row `key` of every partition's side table, where there is one; see frozen_store."""
    with frozen_store(directory) as partitions:
        return {at: row for at, frozen in partitions.items() if (row := frozen.get("side", key)) is not None}


class LmdbTable:
    """See dimint/node/state.py's Table."""

    def __init__(self, store: Store, database: Any) -> None:
        self._store = store
        self.database = database

    def get(self, key: bytes) -> bytes | None:
        row: bytes | None = self._store.transaction().get(key, db=self.database)
        return row

    def load(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self._store.transaction().cursor(self.database) as cursor:
            return dict(cursor.getmulti(keys))

    def save(self, changes: Mapping[bytes, bytes | None]) -> None:
        if not changes:
            return
        store = self._store
        txn = store.transaction()
        rows: Iterable[tuple[bytes, bytes | None]] = changes.items()
        store.uncommitted_bytes += sum(map(len, changes)) + sum(map(len, filter(None, changes.values())))
        with _translated(store.directory), txn.cursor(self.database) as cursor:
            if None in changes.values():
                rows = [item for item in rows if item[1] is not None]
                for key, row in changes.items():
                    if row is None:
                        txn.delete(key, db=self.database)
            cursor.putmulti(rows)

    def scan(self, start: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self._store.transaction().cursor(self.database) as cursor:
            low = max(start, prefix)
            if not (cursor.set_range(low) if low else cursor.first()):
                return found
            for key, row in cursor.iternext():
                if len(found) >= limit or not key.startswith(prefix):
                    break
                found.append((key, row))
        return found


class Frozen:
    """One partition in a read transaction of its own."""

    def __init__(self, txn: Any, data: Any, side: Any, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        self._txn, self._interrupted = txn, interrupted
        self._tables = {"data": data, "side": side}

    def get(self, table: str, key: bytes) -> bytes | None:
        """One row of "data" or "side"."""
        row: bytes | None = self._txn.get(key, db=self._tables[table])
        return row

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """All rows of a table in order. Raises Interrupted."""
        with self._txn.cursor(self._tables[table]) as cursor:
            for item in cursor:
                if self._interrupted():
                    raise Interrupted("the store has to grow")
                yield item


class LmdbState:
    """See dimint/node/state.py's State."""

    def __init__(self, data: LmdbTable, side: LmdbTable) -> None:
        self.data = data
        self.side = side


class _translated:
    """What the library raises about the store in a directory, in our own terms."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
            cls = MapFull if isinstance(error, lmdb.MapFullError) else StoreFull
            raise cls(f"the node's store has no room: {error}", hint=_HINT) from error
        if isinstance(error, lmdb.MapResizedError | lmdb.BadValsizeError | lmdb.BadTxnError):
            raise error  # a fault of this program
        if isinstance(error, lmdb.Error):
            # a write that the full disk cut short is reported as an input/output error
            if shutil.disk_usage(self._directory).free < _DISK_FULL_BYTES:
                raise StoreFull("the node's store has no room: the disk is full", hint=_HINT) from error
            raise StoreError(f"the node's store failed: {error}") from error


def _file_bytes(path: Path) -> int:
    file = path / "data.mdb"
    return file.stat().st_size if file.exists() else 0
