"""The files of the embedded registry, and the rules by which processes share them. No threads here.

::

    generation              32 hex digits, written once: another directory is another registry
    members/ROLE/ID         info as JSON; the member holds an exclusive flock on this very file
    members/ROLE/.join      locked for the moment of joining, and of removing what the dead left
    elections/NAME.lock     the leader holds an exclusive flock
    elections/NAME.term     term of the leader; empty when it resigned
    values/PATH             version, newline, value (`/` in the path is `,` in the name)
    .lock                   locked while a term or a value changes, so that a fence check and its write are one step
    .terms                  the last term given to anybody
    wake/…                  datagram sockets of those who watch

Whoever dies loses his locks to the kernel, so a file that nobody has locked is a dead member. Content changes by
renaming a new file over the old one: a reader sees all of it or nothing. A new file is locked before it gets its name.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from dimint.errors import Fenced, RegistryError, RegistryLost, VersionConflict
from dimint.locks import drop, is_held, keep, locked, try_flock
from dimint.registry.paths import USES_VALUES
from dimint.registry.port import Fence, Versioned

__all__ = ["RegistryFiles"]

LOCK_S: Final = 5.0
"""Longest wait for another process that is inside a critical section of microseconds: it is stopped or the disk hangs."""

Mark = tuple[object, ...]


class RegistryFiles:
    """The directory. Every method is one step that other processes see whole; OSError becomes RegistryLost."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with self._disk():
            for name in ("members", "elections", "values", "wake"):
                (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            path = directory / "generation"
            if not path.exists():
                with locked(directory / ".lock", LOCK_S):
                    if not path.exists():
                        self._write(path, secrets.token_hex(16).encode())
            self.generation = path.read_text()

    # --- members ----------------------------------------------------------------------------------------------------
    def join(self, role: str, member_id: str, info: bytes) -> int:
        """Become a member; the descriptor that holds the membership. RegistryError if the id is taken by a live one."""
        with self._disk():
            folder = self.directory / "members" / role
            folder.mkdir(mode=0o700, exist_ok=True)
            with locked(folder / ".join", LOCK_S):
                if self._read_live(folder / member_id) is not None:
                    raise RegistryError(f"{role} {member_id} is there already")
                self._remove_dead(folder)
                return self._place(folder / member_id, info)

    def update(self, role: str, member_id: str, info: bytes, fd: int) -> int:
        """Replace a living member's info; the descriptor that holds the membership from now on."""
        with self._disk():
            new = self._place(self.directory / "members" / role / member_id, info)
            drop(fd)
            return new

    def leave(self, role: str, member_id: str, fd: int) -> None:
        """Stop being a member."""
        try:
            with contextlib.suppress(OSError):
                (self.directory / "members" / role / member_id).unlink()
        finally:
            drop(fd)

    def members(self, role: str) -> dict[str, bytes]:
        """Live members of a role: id → info."""
        found = {}
        with self._disk():
            os.stat(self.directory / "members")  # a directory that went away is no empty cluster
            for path in self._names(self.directory / "members" / role):
                live = self._read_live(path)
                if live is not None:
                    found[path.name] = live
        return found

    def _place(self, path: Path, info: bytes) -> int:
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, info)
            if not try_flock(fd, fcntl.LOCK_EX):
                raise RegistryError(f"cannot lock {path}")
            os.rename(temporary, path)
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        return keep(fd)

    def _read_live(self, path: Path) -> bytes | None:
        """Info of the member with this file, None if it is dead or not there."""
        while True:
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                before = os.fstat(fd)
                if is_held(fd):
                    return os.pread(fd, before.st_size, 0)
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(path).st_ino != before.st_ino:
                        continue  # the member has just replaced its info, and with it the locked file
                return None
            finally:
                os.close(fd)

    def _remove_dead(self, folder: Path) -> int:
        """Remove what dead members left, while `.join` is locked. How many."""
        count = 0
        for path in self._names(folder):
            if self._read_live(path) is None:
                path.unlink(missing_ok=True)
                count += 1
        return count

    # --- elections --------------------------------------------------------------------------------------------------
    def lead(self, election: str) -> tuple[int, int] | None:
        """Try to become the leader: (descriptor that holds the lead, term), or None while somebody else leads."""
        with self._disk():
            fd = os.open(self.directory / "elections" / f"{election}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if not try_flock(fd, fcntl.LOCK_EX):
                    os.close(fd)
                    return None
                with locked(self.directory / ".lock", LOCK_S):
                    term = self._number(self.directory / ".terms") + 1
                    self._write(self.directory / ".terms", str(term).encode())
                    self._write(self.directory / "elections" / f"{election}.term", str(term).encode())
            except BaseException:
                os.close(fd)
                raise
            return keep(fd), term

    def resign(self, election: str, fd: int) -> None:
        """End the term, then the lead."""
        try:
            with contextlib.suppress(OSError), locked(self.directory / ".lock", LOCK_S):
                self._write(self.directory / "elections" / f"{election}.term", b"")
        finally:
            drop(fd)

    # --- values -----------------------------------------------------------------------------------------------------
    def get(self, path: str) -> Versioned | None:
        with self._disk():
            try:
                version, _, value = self._value_file(path).read_bytes().partition(b"\n")
            except FileNotFoundError:
                os.stat(self.directory / "values")
                return None
            return Versioned(value, int(version))

    def put(self, path: str, value: bytes, version: int, fence: Fence | None) -> int:
        with self._disk(), locked(self.directory / ".lock", LOCK_S):
            if fence is not None and not self._is_current(fence):
                raise Fenced(f"term {fence.term} is over")
            stored = self.get(path)
            found = 0 if stored is None else stored.version
            if found != version:
                raise VersionConflict(f"{path} has version {found}, not {version}")
            self._write(self._value_file(path), b"%d\n%s" % (version + 1, value))
            return version + 1

    def clear(self, keep: Collection[str]) -> int:
        """Remove dead members, and values that no live member uses, but those at `keep`. How many."""
        kept = {self._value_file(path) for path in keep}
        count, used = 0, False
        with self._disk():
            for folder in self._names(self.directory / "members"):
                with locked(folder / ".join", LOCK_S):
                    count += self._remove_dead(folder)
                used = used or (folder.name in USES_VALUES and any(self._names(folder)))
            if not used:
                with locked(self.directory / ".lock", LOCK_S):
                    for path in set(self._names(self.directory / "values")) - kept:
                        path.unlink(missing_ok=True)
                        count += 1
        return count

    def _value_file(self, path: str) -> Path:
        return self.directory / "values" / path.replace("/", ",")

    def _is_current(self, fence: Fence) -> bool:
        if fence.generation != self.generation:
            return False
        files = self._names(self.directory / "elections")
        return any(self._number(path) == fence.term for path in files if path.suffix == ".term")

    # --- what changed -----------------------------------------------------------------------------------------------
    def mark(self) -> Mark:
        """Something that is equal as long as nothing changed: every file's identity, and who of the members lives."""
        with self._disk():
            if (self.directory / "generation").read_text() != self.generation:
                raise RegistryLost(f"{self.directory} is another registry now")
            parts: list[object] = []
            for folder in self._names(self.directory / "members"):
                for path in self._names(folder):
                    parts.append((folder.name, path.name, self._stamp(path), self._read_live(path) is not None))
            for name in ("elections", "values"):
                parts += [(path.name, self._stamp(path)) for path in self._names(self.directory / name)]
            return tuple(parts)

    # --- small things -----------------------------------------------------------------------------------------------
    @staticmethod
    def _stamp(path: Path) -> tuple[int, int]:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns

    @staticmethod
    def _names(folder: Path) -> Iterator[Path]:
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return iter(())
        return (folder / name for name in names if not name.startswith("."))

    @staticmethod
    def _number(path: Path) -> int:
        try:
            text = path.read_text()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        """Replace a file by a rename, on disk before this returns."""
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise RegistryError(f"the registry is stuck: {error}") from error
        except OSError as error:
            raise RegistryLost(f"the registry in {self.directory} is gone: {error}") from error
