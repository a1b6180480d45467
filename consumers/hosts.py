"""Changes that people make to hosts: named otherwise, merged into another, forgotten. Each is an event of the log."""

import os
import socket
import threading
import time
from contextlib import ExitStack

from dimint.consumers.alerts.journal import Journal
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.consumers.rows import HostRow
from dimint.errors import SettingsError
from dimint.log.opening import genesis, open_settings_log
from dimint.settings import ConsumerSettings
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter

__all__ = ["change_host", "find_host"]

_FOLLOW_S = 5.0


def find_host(reader: StatusReader, id_or_name: str) -> HostRow:
    """The host of this id or name, merged ones too. Raises SettingsError."""
    row = reader.host(id_or_name)
    if row is None:
        raise SettingsError(f"there is no host {id_or_name!a}", hint="`dimint host list --all` shows those there are")
    return row


def change_host(settings: ConsumerSettings, kind: str, host: str, *fields: str) -> bool:
    """Append the event; whether the tables showed something new within _FOLLOW_S. Raises LogError."""
    clock = SystemClock()
    name = socket.gethostname()
    with ExitStack() as stack:
        source = open_settings_log(settings, clock=clock)
        stack.callback(source.close)
        found = genesis(source, wanted=settings.genesis, clock=clock, host=name, process=f"host {os.getpid()}")
        writer = BatchWriter(source, clock=clock, host=name, process="dimint host")
        stack.callback(writer.close)
        reader = stack.enter_context(StatusReader(settings.data_dir / TABLES_FOLDER))
        partition = found.status_partition(host)
        before = reader.positions().get(partition, 0)
        Journal(source, found, writer, threading.Event()).append([[kind, host, 0, 0, *fields]])
        deadline = clock.monotonic() + _FOLLOW_S
        while clock.monotonic() < deadline:
            if reader.positions().get(partition, 0) > before:
                return True
            time.sleep(0.05)
    return False
