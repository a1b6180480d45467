"""What kazoo lacks, added by its own means: a limit to connecting, the negotiated session time, and a quiet log."""

import logging
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler

__all__ = ["Connection", "Handler", "Notes"]


class Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with a limit to connecting: a server that is off must not cost the whole session."""

    def __init__(self, connect_s: float) -> None:
        super().__init__()
        self._connect_s = connect_s

    def create_connection(self, *args: Any, timeout: float, **more: Any) -> Any:
        return super().create_connection(*args, timeout=min(timeout, self._connect_s), **more)


class Connection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection, which also tells what session time the servers allowed: kazoo itself forgets it."""

    negotiated_s = 0.0

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        read_timeout_ms, connect_timeout_ms = super()._connect(host, hostip, port)
        self.negotiated_s = read_timeout_ms * 1.5 / 1000  # it reads for two thirds of the session's time
        return read_timeout_ms, connect_timeout_ms


class Notes(logging.Logger):
    """kazoo's log: its errors go to ours; of its warnings, one a try to connect, the last is kept as the reason."""

    def __init__(self) -> None:
        super().__init__("kazoo", logging.WARNING)
        self.parent = logging.getLogger("dimint")
        self.last = ""

    def handle(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            super().handle(record)
        elif record.getMessage() != "Transition to CONNECTING":
            self.last = " ".join(record.getMessage().removeprefix("Connection dropped: ").split())
