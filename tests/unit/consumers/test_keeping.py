"""What the tables let go of is what the log says, and nothing else."""

from pathlib import Path

import apsw

from dimint.consumers.digest import table_digest, table_rows
from dimint.consumers.reading import StatusReader
from dimint.consumers.tables_sealing import FOR_EVER, Keep
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, SLOTS
from tests.support.samples import START_NS, Machine, registered, sample_event
from tests.support.status_log import StatusLog, feed

SAMPLES = 2400
INTERVAL_S = 20.0
"""So that the samples take half a day."""
KEEP = Keep(2 * HOUR_NS, 6 * HOUR_NS, 0)


def lab(samples: int = SAMPLES) -> tuple[StatusLog, list[Machine]]:
    """Two hosts; one falls silent half-way, the other sends a sample late."""
    log = StatusLog()
    machines = [Machine(seed, gpus=1, cores=2, interval_s=INTERVAL_S) for seed in range(2)]
    for number, machine in enumerate(machines):
        log.put([registered(machine.id, f"h{number}", facts=machine.facts)], time_ns=machine.time_ns)
        events = list(machine.events(samples if number else samples // 2))
        events.insert(5 * samples // 6, events.pop(samples // 30) if number else events.pop())
        logged_ns = 0
        for time_ns, event in events:
            logged_ns = max(logged_ns, time_ns) + 1_000_000
            log.put([sample_event(machine.id, *event[4:])], time_ns=time_ns, logged_at_ns=logged_ns)
    return log, machines


def tiers_of(folder: Path, host: str, length_ns: int) -> list[int]:
    return [row[3] for row in table_rows(folder) if row[0] == "tier" and row[1:3] == [host, length_ns]]


def test_what_is_old_by_log_time_goes_and_a_rebuild_agrees(tmp_path: Path) -> None:
    """Chunks and blocks that end before what is kept are gone; hours, intervals and use stay; cuts into commits do not matter."""
    log, (silent, alive) = lab()
    whole = feed(log, tmp_path / "whole", keep=FOR_EVER)
    kept = feed(log, tmp_path / "kept", keep=KEEP)
    pieces = feed(log, tmp_path / "pieces", [700, 1, 1500, 800], keep=KEEP)
    assert table_digest(kept) == table_digest(pieces) != table_digest(whole)

    end_ns = START_NS + int(SAMPLES * INTERVAL_S * 1e9)
    with StatusReader(kept) as reader:
        times = [stored.time_ns for stored in reader.last(alive.id, 10_000)]
        old = [stored.time_ns for stored in reader.last(silent.id, 10_000)]
    # a host is looked at every 240 samples, and chunks are as long
    reach_ns = KEEP.samples_ns + int(3 * 240 * INTERVAL_S * 1e9)
    assert end_ns - reach_ns < min(times) < end_ns - KEEP.samples_ns
    assert len(times) < SAMPLES / 2
    assert max(old) < end_ns - 6 * HOUR_NS, "a silent host keeps what it has"
    blocks = tiers_of(kept, alive.id, MINUTE_NS)
    assert blocks
    assert min(blocks) >= (end_ns - KEEP.minutes_ns - int(480 * INTERVAL_S * 1e9)) // (MINUTE_NS * SLOTS)
    assert len(blocks) < len(tiers_of(whole, alive.id, MINUTE_NS))
    for row in ("process", "used", "covered", "host", "version"):
        assert [one for one in table_rows(kept) if one[0] == row] == [one for one in table_rows(whole) if one[0] == row]
    assert tiers_of(kept, alive.id, HOUR_NS) == tiers_of(whole, alive.id, HOUR_NS)
    with StatusReader(kept) as reader, StatusReader(whole) as all_of_it:
        day = (START_NS, end_ns, 10)
        assert reader.series(alive.id, *day) == all_of_it.series(alive.id, *day), "a long range is answered from what is left"


def test_what_is_kept_stands_in_the_tables(tmp_path: Path) -> None:
    """It is gone on with if nobody says otherwise, and counts from when it was changed."""
    log, _ = lab(60)
    folder = feed(log, tmp_path / "a", records=log.records()[:10], keep=KEEP)
    feed(log, folder, records=log.records()[10:20])
    db = apsw.Connection(str(folder / "status-000001.db"))
    assert db.execute("select value from meta where name = 'keep'").get == f"[{KEEP.samples_ns}, {KEEP.minutes_ns}, 0]"
    feed(log, folder, records=log.records()[20:30], keep=FOR_EVER)
    assert db.execute("select value from meta where name = 'keep'").get == "[0, 0, 0]"
    db.close()
