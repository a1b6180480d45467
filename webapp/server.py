"""Serving an application on one thread: own event loop, bound socket, clean end; no signals, no worker processes."""

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable

from sanic import Sanic
from sanic.http.constants import Stage
from sanic.server.async_server import AsyncioServer
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from dimint.errors import SettingsError
from dimint.webapp.site import App

__all__ = ["WebServer", "bind", "quiet_sanic"]

_BACKLOG = 512


class _Door(WebSocketProtocol):
    """Sanic's protocol, but bytes that trickle in do not extend the time that a request may take."""

    def data_received(self, data: bytes) -> None:
        began = self._time
        super().data_received(data)  # type: ignore[no-untyped-call]
        if self._http is not None and self._http.stage is not Stage.IDLE:
            self._time = began


def bind(address: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises SettingsError in one line if the port is taken or the address is not ours."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise SettingsError(f"http_bind: {address} is no address of this machine ({error.strerror})") from error
    door = socket.socket(family, kind, protocol)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(where)
        door.listen(_BACKLOG)
    except OSError as error:
        door.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"http_bind: {address} is no address of this machine") from error
        problem = f"http_port: cannot listen on {address}:{port} ({error.strerror})"
        raise SettingsError(problem, hint="choose another --http_port") from error
    door.setblocking(False)
    return door


class WebServer:
    """A process object: `run` serves until `stop`. It owns the app and the socket."""

    def __init__(self, app: App, door: socket.socket, on_ready: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._door = door
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        name = door.getsockname()
        self.address: tuple[str, int] = (name[0], name[1])
        """Where it listens: address and port."""

    def run(self) -> None:
        """Serve until `stop` was called; then end streams and open requests within some seconds."""
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Make `run` return soon. From any thread, also before `run`; idempotent."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._stop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        with self._lock:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            if self._stopped:
                self._stop.set()
        listen_later = {"start_serving": False}
        server = await self._app.create_server(
            sock=self._door, protocol=_Door, backlog=_BACKLOG, asyncio_server_kwargs=listen_later
        )
        assert server is not None
        try:
            await server.startup()  # type: ignore[no-untyped-call]
        except BaseException:
            Sanic.unregister_app(self._app)
            raise
        try:
            await server.before_start()  # type: ignore[no-untyped-call]
            await server.start_serving()  # type: ignore[no-untyped-call]
            await server.after_start()  # type: ignore[no-untyped-call]
            self._on_ready()
            await self._stop.wait()
        finally:
            await self._end(server)

    async def _end(self, server: AsyncioServer) -> None:
        for _ in range(4):
            await asyncio.sleep(0)  # a connection that is being accepted gets its protocol, or asyncio would leak it
        server.close()  # type: ignore[no-untyped-call]
        await server.before_stop()  # type: ignore[no-untyped-call]
        deadline = asyncio.get_running_loop().time() + 2.0
        while server.connections and asyncio.get_running_loop().time() < deadline:
            for connection in set(server.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.02)
        for connection in set(server.connections):
            connection.abort()
        while server.connections and asyncio.get_running_loop().time() < deadline + 1.0:
            await asyncio.sleep(0)  # what was aborted is gone when the loop has come round
        await server.after_stop()  # type: ignore[no-untyped-call]
        self._door.close()
        Sanic.unregister_app(self._app)
        with self._lock:
            self._loop = None


def quiet_sanic() -> None:
    """Let through what Sanic warns about, on the program's own log, and nothing else."""
    for name in ("sanic.root", "sanic.server", "sanic.access", "sanic.error", "sanic.websockets"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
