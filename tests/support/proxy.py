"""A TCP proxy on the loopback that goes wrong as told: holds what is sent, delays it, cuts everything off."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Literal

Direction = Literal["up", "down"]
"""`up` is from the client to the server."""


class _Wire:
    """One connection with its two sides, each pumped by a thread."""

    def __init__(self, proxy: "Proxy", client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._sides = (client, server)
        self.held: set[Direction] = set()
        self.broken = False
        self.threads = [
            threading.Thread(target=self._pump, args=(client, server, "up"), daemon=True),
            threading.Thread(target=self._pump, args=(server, client, "down"), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(1 << 16)
                self._proxy.wait_until_released(self, direction)
                if not data or self.broken:
                    break
                if self._proxy.delay_s:
                    time.sleep(self._proxy.delay_s)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)  # not closed: what the other side still says is read

    def break_off(self) -> None:
        self.broken = True
        for side in self._sides:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for side in self._sides:
            side.close()


class Proxy:
    """Listens at `port` (0 for any) and passes connections on to port `target` of 127.0.0.1.

    `host` may be another address of the loopback, 127.0.0.2 say, where a process that advertises it is reached at its own port.
    """

    def __init__(self, target: int, port: int = 0, *, host: str = "127.0.0.1") -> None:
        self._target = target
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.delay_s = 0.0
        self._changed = threading.Condition()
        self._wires: list[_Wire] = []
        self._cut = self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def hold(self, *directions: Direction) -> None:
        """What the connections that are there now send stays here, also when they are closed; new ones are free."""
        with self._changed:
            for wire in self._wires:
                wire.held.update(directions or ("up", "down"))

    def release(self) -> None:
        """Pass on what was held."""
        with self._changed:
            for wire in self._wires:
                wire.held.clear()
            self._changed.notify_all()

    def cut(self) -> None:
        """Break all connections; new ones are broken at once, until `mend`."""
        with self._changed:
            self._cut = True
            for wire in self._wires:
                wire.break_off()
                wire.held.clear()
            self._changed.notify_all()

    def mend(self) -> None:
        with self._changed:
            self._cut = False

    def close(self) -> None:
        self.cut()
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for wire in self._wires:
            for thread in wire.threads:
                thread.join(5)
            wire.close()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def wait_until_released(self, wire: _Wire, direction: Direction) -> None:
        with self._changed:
            self._changed.wait_for(lambda: direction not in wire.held)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                cut = self._cut
            try:
                server = None if cut else socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            server.settimeout(None)
            with self._changed:
                self._wires.append(_Wire(self, client, server))
