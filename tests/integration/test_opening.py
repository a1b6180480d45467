"""Opening a log by its name, and its genesis."""

import time
from pathlib import Path

import pytest

from dimint.batch import By
from dimint.clock import ManualClock
from dimint.errors import DimintError, LogError, LogMismatch, LogUnavailable, SettingsError
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import DEFAULT_KV_PARTITIONS
from dimint.log.opening import Genesis, GenesisSettings, genesis, open_log
from dimint.log.port import Entry, Log
from dimint.testing import FaultyLog, memory_log
from dimint.writer import BatchWriter, Outgoing


def _genesis(log: Log, **wanted: int) -> Genesis:
    return genesis(log, wanted=GenesisSettings(**wanted), clock=ManualClock(), host="h", process="p")


def test_a_new_log_gets_the_defaults(tmp_path: Path) -> None:
    """All three topics are made; the second opening finds the same."""
    for _ in range(2):
        log = open_log(tmp_path, clock=time)
        found = _genesis(log)
        assert found == Genesis(log.describe().generation, 10_000, DEFAULT_KV_PARTITIONS, 4)
        assert log.describe().topics == {CLUSTER_TOPIC: 1, KV_TOPIC: DEFAULT_KV_PARTITIONS, STATUS_TOPIC: 4}
        assert log.bounds(CLUSTER_TOPIC, 0) == (0, 1)
        log.close()


def test_what_was_asked_for_is_kept_for_ever() -> None:
    """The first wish wins; the same or no wish later is fine, another one is refused in one line."""
    log = memory_log()
    first = _genesis(log, hash_range=100, kv_partitions=3, status_partitions=2)
    assert first[1:] == (100, 3, 2)
    assert _genesis(log) == first
    assert _genesis(log, hash_range=100) == first
    for name in ("hash_range", "kv_partitions", "status_partitions"):
        with pytest.raises(LogMismatch, match=f"{name} of this log is") as caught:
            _genesis(log, **{name: 50})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wanted",
    [
        {"hash_range": 0},
        {"hash_range": 1 << 30},
        {"kv_partitions": 0},
        {"kv_partitions": 2000},
        {"status_partitions": -1},
        {"hash_range": DEFAULT_KV_PARTITIONS - 1},
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_made(wanted: dict[str, int]) -> None:
    """Nothing is left behind."""
    log = memory_log()
    with pytest.raises(SettingsError):
        _genesis(log, **wanted)
    assert log.describe().topics == {}


def test_later_geneses_and_foreign_records_mean_nothing() -> None:
    """Only the first genesis event counts, whatever stands around it."""
    log = memory_log()
    first = _genesis(log, hash_range=100)
    log.append([Entry(CLUSTER_TOPIC, 0, b"hello")])
    writer = BatchWriter(log, clock=ManualClock(), host="h", process="p")
    settings = {"hash": "md5", "hash_range": 5, "partitions": {KV_TOPIC: 1, STATUS_TOPIC: 1}}
    writer.append([Outgoing(CLUSTER_TOPIC, 0, (By(None, "h", "p"),), (["cluster.genesis", None, 0, 0, settings],))])
    assert _genesis(log) == first


_PARTITIONS = {KV_TOPIC: 1, STATUS_TOPIC: 1}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hash": "sha1", "hash_range": 5, "partitions": _PARTITIONS},
        {"hash": "md5", "hash_range": "5", "partitions": _PARTITIONS},
        {"hash": "md5", "hash_range": 5, "partitions": {KV_TOPIC: 1}},
    ],
)
def test_a_genesis_that_cannot_be_followed_is_refused(settings: dict[str, object]) -> None:
    """A newer program's genesis is not guessed at."""
    log = FaultyLog(memory_log())
    log.fail(1)
    with pytest.raises(LogError, match="cannot write the genesis"):
        _genesis(log)
    writer = BatchWriter(log, clock=ManualClock(), host="h", process="p")
    writer.append([Outgoing(CLUSTER_TOPIC, 0, (writer.by,), (["cluster.genesis", None, 0, 0, settings],))])
    with pytest.raises(LogMismatch, match="cannot be followed"):
        _genesis(log)


@pytest.mark.parametrize(
    ("location", "kind"), [("kafka://127.0.0.1:1", LogUnavailable), ("http://x", SettingsError), ("redis://y", SettingsError)]
)
def test_locations_that_are_no_directory(location: str, kind: type[DimintError]) -> None:
    """One clear line each."""
    with pytest.raises(kind) as caught:
        open_log(location, clock=time)
    assert "\n" not in str(caught.value)
    assert location in str(caught.value)
