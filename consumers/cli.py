"""Puts the consumer together from its settings, status tables and history of keys: what `dimint up` and `dimint rebuild` run."""

import json
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from dimint.consumers.folder import TablesFolder
from dimint.consumers.historian import Historian
from dimint.consumers.keeper import Keeper
from dimint.consumers.reading import TABLES_FOLDER
from dimint.consumers.rebuild import Rebuilt, rebuild_tables
from dimint.consumers.runner import StatusConsumer
from dimint.consumers.tables_sealing import Keep
from dimint.curve import read_key
from dimint.errors import SettingsError
from dimint.events import STATUS_TOPIC
from dimint.log.opening import genesis, open_settings_log
from dimint.log.port import Log
from dimint.log.waiting import open_when_there
from dimint.progress import progress_of
from dimint.registry.waiting import open_registry_when_there
from dimint.replay.history import history_folder
from dimint.replay.positions import Bound
from dimint.replay.trimming import archives_in
from dimint.service import Service
from dimint.settings import CommonSettings, ConsumerSettings
from dimint.system_clock import SystemClock

__all__ = ["rebuild", "run"]


def run(settings: ConsumerSettings, service: Service) -> None:
    """Follow the log until the service ends. Raises SettingsError, in one line, if another consumer has the tables."""
    folder = TablesFolder(settings.data_dir / TABLES_FOLDER)
    with ExitStack() as stack:
        lock = folder.lock_consumer()
        stack.callback(lock.release)
        clock = SystemClock()
        key = read_key(settings.key_file)
        source, found = open_when_there(settings, wanted=settings.genesis, clock=clock, process="consumer", service=service)
        stack.callback(source.close)
        registry = open_registry_when_there(settings, log_id=found.generation, service=service)
        stack.callback(registry.close)
        membership = registry.join("consumer", os.urandom(16).hex(), {"pid": os.getpid()})
        archives = partial(archives_in, settings.archives, STATUS_TOPIC, found.generation)
        consumer = StatusConsumer(source, folder, clock, membership.update, keep=_keep(settings), archives=archives)
        historian = Historian(source, history_folder(settings.data_dir, found.generation), registry, clock, key)
        service.ready()
        service.run(consumer, historian, Keeper(settings, source, registry, clock))


def rebuild(
    settings: ConsumerSettings,
    *,
    archives: Sequence[Path] = (),
    end: Bound | None = None,
    into: Path | None = None,
    as_json: bool = False,
) -> Rebuilt:
    """Build the status tables anew from archives and the log, print their digest, and switch to them.

    Without `archives` those count that trims left in the data directory.

    With `into` the new tables, read up to `end`, are those of that data directory, to be looked at, and the live ones stay.
    """
    with ExitStack() as stack:
        source = _open_log(settings, stack)
        folder = TablesFolder((settings.data_dir if into is None else into) / TABLES_FOLDER)
        if into is not None and folder.live() is not None:
            raise SettingsError(f"{folder.path} holds tables already", hint="name another folder, or remove this one")
        trimmed = partial(archives_in, settings.archives, STATUS_TOPIC, source.describe().generation)
        built = rebuild_tables(
            source,
            folder,
            archives=archives or trimmed(),
            more=trimmed,
            end=end,
            keep=_keep(settings),
            progress=lambda what: progress_of(f"rebuild {what}", as_json=as_json),
        )
        if as_json:
            row = {"path": str(built.path), "events": built.events, "digest": built.digest, "positions": built.positions}
            print(json.dumps({"what": "status", **row}), flush=True)
        else:
            print(f"status tables {built.path}: {built.events} events, digest {built.digest}", flush=True)
        return built


def _keep(settings: ConsumerSettings) -> Keep:
    days = (settings.keep_samples, settings.keep_minutes, settings.keep_hours)
    return Keep(*(int(number * 86400e9) for number in days))


def _open_log(settings: CommonSettings, stack: ExitStack) -> Log:
    clock = SystemClock()
    source = open_settings_log(settings, clock=clock)
    stack.callback(source.close)
    genesis(source, wanted=settings.genesis, clock=clock, host=socket.gethostname(), process="consumer")
    return source
