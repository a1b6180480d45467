"""The registry in a directory: for any number of processes of one user on one machine (see files.py for how).

A thread per registry looks every POLL_S, or at once when another process sends it a datagram, and then stands in the
elections of this process and calls the watchers. Reads and writes happen on the caller's thread.

A session may be held across `exec` of other programs (its files are close-on-exec) but not used in a forked child:
there it is closed, and the parent keeps what it had.
"""

import contextlib
import json
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from dimint.errors import RegistryError, RegistryLost
from dimint.registry.files import Mark, RegistryFiles
from dimint.registry.paths import check_id, check_path, encode_info
from dimint.registry.port import Fence, Versioned
from dimint.service import spawn_thread

__all__ = ["EmbeddedRegistry"]

POLL_S: Final = 0.1
CALL_ANYWAY_S: Final = 5.0
"""Watchers are called at least this often."""

log = logging.getLogger("dimint")


class EmbeddedRegistry:
    """One session with the registry in `directory`, which is created if it is not there."""

    def __init__(self, directory: Path, *, spawn: Callable[[str, Callable[[], None]], threading.Thread] = spawn_thread) -> None:
        self._files = RegistryFiles(directory)
        self._spawn = spawn
        self._lock = threading.RLock()
        self._open = True
        self._thread: threading.Thread | None = None
        self._memberships: set[_Membership] = set()
        self._candidacies: set[_Candidacy] = set()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._bell = _Bell(directory / "wake")

    def join(self, role: str, member_id: str, info: Mapping[str, Any]) -> "_Membership":
        check_id(role)
        check_id(member_id)
        encoded = encode_info(info)
        with self._lock:
            self._check_open()
            membership = _Membership(self, role, member_id, self._files.join(role, member_id, encoded))
            self._memberships.add(membership)
        self._bell.ring()
        return membership

    def members(self, role: str) -> dict[str, dict[str, Any]]:
        self._check_open()
        return {member_id: json.loads(info) for member_id, info in self._files.members(role).items()}

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        token = object()
        with self._lock:
            self._check_open()
            self._callbacks[token] = callback
            self._start()

        def cancel() -> None:
            with self._lock:
                self._callbacks.pop(token, None)

        return cancel

    def elect(self, election: str, candidate_id: str) -> "_Candidacy":
        check_id(election)
        check_id(candidate_id)
        with self._lock:
            self._check_open()
            candidacy = _Candidacy(self, election)
            self._candidacies.add(candidacy)
            candidacy.try_to_lead()
            self._start()
        self._bell.ring()
        return candidacy

    def get(self, path: str) -> Versioned | None:
        check_path(path)
        self._check_open()
        return self._files.get(path)

    def put(self, path: str, value: bytes, *, version: int, fence: Fence | None = None) -> int:
        check_path(path, value)
        self._check_open()
        stored = self._files.put(path, value, version, fence)
        self._bell.ring()
        return stored

    def clear(self, *, keep: Collection[str] = ()) -> int:
        self._check_open()
        count = self._files.clear(keep)
        self._bell.ring()
        return count

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._callbacks.clear()
            handles: list[_Candidacy | _Membership] = [*self._candidacies, *self._memberships]
        for handle in handles:
            handle.end()
        self._bell.ring()
        self._bell.wake_self()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._bell.close()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _check_open(self) -> None:
        if not self._open:
            raise RegistryLost("the registry is closed")

    def _start(self) -> None:
        if self._thread is None:
            self._thread = self._spawn("registry", self._look)

    def _look(self) -> None:
        """Until `close`: stand in elections, and tell the watchers of changes."""
        seen: Mark = ()
        called = 0.0
        while self._open:
            try:
                won = self._stand()
                mark = self._files.mark()
            except RegistryLost:
                raise
            except RegistryError as error:
                log.warning("%s; trying again", error)
                self._bell.wait(POLL_S)
                continue
            now = time.monotonic()
            if mark != seen or won or now - called >= CALL_ANYWAY_S:
                seen, called = mark, now
                with self._lock:
                    callbacks = list(self._callbacks.values())
                for callback in callbacks:
                    callback()
            self._bell.wait(POLL_S)

    def _stand(self) -> bool:
        """Try to win the elections that this process stands in; whether one was."""
        with self._lock:
            won = [candidacy.try_to_lead() for candidacy in list(self._candidacies)]
        if any(won):
            self._bell.ring()
        return any(won)


class _Membership:
    def __init__(self, registry: EmbeddedRegistry, role: str, member_id: str, fd: int) -> None:
        self._registry, self._role, self._id = registry, role, member_id
        self._fd: int | None = fd

    def update(self, info: Mapping[str, Any]) -> None:
        encoded = encode_info(info)
        with self._registry._lock:
            self._registry._check_open()
            if self._fd is None:
                raise RegistryError(f"{self._role} {self._id} has left")
            self._fd = self._registry._files.update(self._role, self._id, encoded, self._fd)
        self._registry._bell.ring()

    def leave(self) -> None:
        if self.end():
            self._registry._bell.ring()

    def end(self) -> bool:
        with self._registry._lock:
            fd, self._fd = self._fd, None
            self._registry._memberships.discard(self)
            if fd is not None:
                self._registry._files.leave(self._role, self._id, fd)
        return fd is not None


class _Candidacy:
    def __init__(self, registry: EmbeddedRegistry, election: str) -> None:
        self._registry, self._election = registry, election
        self._lead: tuple[int, int] | None = None
        self._standing = True

    def fence(self) -> Fence | None:
        lead = self._lead
        return None if lead is None else Fence(self._registry._files.generation, lead[1])

    def try_to_lead(self) -> bool:
        """Whether the lead was won just now. The registry's lock is held."""
        if not self._standing or self._lead is not None:
            return False
        self._lead = self._registry._files.lead(self._election)
        return self._lead is not None

    def resign(self) -> None:
        if self.end():
            self._registry._bell.ring()

    def end(self) -> bool:
        with self._registry._lock:
            lead, self._lead = self._lead, None
            self._standing = False
            self._registry._candidacies.discard(self)
            if lead is not None:
                self._registry._files.resign(self._election, lead[0])
        return lead is not None


class _Bell:
    """Datagrams between the processes of one directory: only to be faster than the poll, so losing one does no harm."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.open(folder, os.O_RDONLY)
        self._name = secrets.token_hex(8)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._wake_read, self._wake_write = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        with contextlib.suppress(OSError):
            self._socket.bind(self._address(self._name))

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._folder}/{name}"  # a socket's own path may have 107 bytes only

    def ring(self) -> None:
        """Wake everybody who watches this directory, also in this process."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                try:
                    self._sender.sendto(b"\0", self._address(name))
                except ConnectionRefusedError:
                    with contextlib.suppress(OSError):  # its owner is dead
                        os.unlink(name, dir_fd=self._folder)
                except OSError:
                    continue  # gone, or it has enough unread already

    def wake_self(self) -> None:
        os.write(self._wake_write, b"\0")

    def wait(self, timeout_s: float) -> None:
        readable = {fd for fd, _ in self._poll.poll(timeout_s * 1000)}
        if self._socket.fileno() in readable:
            with contextlib.suppress(OSError):
                while self._socket.recv(16):
                    pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        self._socket.close()
        self._sender.close()
        for fd in (self._folder, self._wake_read, self._wake_write):
            os.close(fd)
