"""The keeper: what is too old leaves the log, archived, and what needs it stays."""

import logging
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.consumers.cli import rebuild
from dimint.consumers.digest import table_digest
from dimint.consumers.keeper import Keeper
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.opening import find_genesis, open_log
from dimint.log.port import Log
from dimint.registry.memory import MemoryRegistry
from dimint.system_clock import SystemClock
from tests.support.consumer_process import settings_for
from tests.support.replay_log import REAL, made_log, new_location, write_samples

SECOND = 1 / 86400


def bounds(log: Log, topic: str) -> list[tuple[int, int]]:
    return [log.bounds(topic, partition)[:2] for partition in range(log.describe().topics[topic])]


@pytest.mark.parametrize("backend", REAL)
def test_old_status_records_are_archived_and_go(backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not before the tables have read them; then tables rebuilt from archives and log are the same, and verified the same."""
    location = new_location(backend, tmp_path)
    log = made_log(location, 20, 300)
    settings = replace(settings_for(tmp_path / "data"), log=location, keep_status_log=SECOND, keep_kv_log=SECOND)
    registry = MemoryRegistry()
    keeper = Keeper(settings, log, registry, SystemClock())
    time.sleep(1.2)  # the brokers' clock cannot be set
    whole = rebuild(settings).digest
    found = find_genesis(log)
    assert found is not None
    write_samples(log, found, 5)
    before = bounds(log, STATUS_TOPIC)
    with caplog.at_level(logging.WARNING):
        keeper.look()
        keeper.look()
    after = bounds(log, STATUS_TOPIC)
    assert [end for _, end in after] == [end for _, end in before]
    assert any(start > 0 for start, _ in after)
    assert any(start < end for start, end in after), "what is new stays"
    (archive,) = settings.archives.iterdir()
    assert archive.name == f"{STATUS_TOPIC}-000001.dma"
    assert [start for start, _ in bounds(log, KV_TOPIC)] == [0, 0, 0], "there are no snapshots"
    again = rebuild(settings)
    assert again.events > 300
    rebuilt = rebuild(settings, into=tmp_path / "whole")
    assert rebuilt.digest == again.digest == whole
    assert table_digest(settings.data_dir / "tables") == again.digest
    assert main(["verify", "status", f"--data_dir={settings.data_dir}", f"--log={location}"]) == 0
    registry.close()
    log.close()


def test_what_the_tables_have_not_read_stays(tmp_path: Path) -> None:
    """However old it is."""
    location = new_location("embedded", tmp_path)
    with closing(made_log(location, 1, 20)) as log, closing(open_log(location, clock=SystemClock())):
        settings = replace(settings_for(tmp_path / "data"), log=location, keep_status_log=SECOND / 100)
        rebuild(settings)
        read = [end for _, end in bounds(log, STATUS_TOPIC)]
        found = find_genesis(log)
        assert found is not None
        write_samples(log, found, 20)
        time.sleep(0.1)
        registry = MemoryRegistry()
        Keeper(settings, log, registry, SystemClock()).look()
        assert [start for start, _ in bounds(log, STATUS_TOPIC)] == read
        registry.close()
