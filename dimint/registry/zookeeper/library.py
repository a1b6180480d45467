"""What kazoo lacks, added by its own means: checked connections, the negotiated session time, and a quiet log."""

import logging
import socket
import ssl
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler

from dimint.errors import SettingsError
from dimint.registry.zookeeper.options import ZooKeeperOptions

__all__ = ["Connection", "Handler", "Notes", "tls_context"]


class Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with connections of our own making.

    A server that is off must not cost the whole session, and with `tls` its certificate and host name are checked (kazoo
    checks no host name unless asked, and leaves sockets open when a handshake fails).
    """

    def __init__(self, connect_s: float, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._connect_s, self._tls = connect_s, tls

    def create_connection(self, address: tuple[str, int], hostname: str | None = None, **_settings: Any) -> socket.socket:
        made = socket.create_connection(address, self._connect_s)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made if self._tls is None else self._tls.wrap_socket(made, server_hostname=hostname)


def tls_context(options: ZooKeeperOptions) -> ssl.SSLContext | None:
    """How to encrypt, None for not at all. Raises SettingsError for files that are not what they should be."""
    if not options.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:
        raise SettingsError(f"zookeeper_ca, zookeeper_certificate or zookeeper_key cannot be used: {error}") from error
    return context


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
