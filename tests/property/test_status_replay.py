"""The status tables are a function of the log: of nothing else, and of all of it."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.consumers.digest import table_digest
from dimint.consumers.intervals import processes_of
from dimint.consumers.reading import StatusReader, StoredSample
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, sum_up
from dimint.events import STATUS_TOPIC
from dimint.log.port import Record
from dimint.log.reading import Counted, Intake
from tests.support.samples import START_NS, host_id, registered, sample_event
from tests.support.status_log import PARTITIONS, StatusLog, feed

SECOND = 1_000_000_000
SERIES = [(1 << 20, SECOND), (100, 7 * SECOND), (11, MINUTE_NS), (4, 3 * MINUTE_NS), (1, HOUR_NS)]
"""Points asked for, and the length of a slot that this gives."""
HOSTS = [host_id(number) for number in range(3)]
RUNS = [b"run one.", b"run two."]

SAMPLES = st.tuples(st.just("sample"), st.sampled_from(HOSTS), st.sampled_from(RUNS), st.integers(1, 60), st.integers(-30, 30))
NAMES = st.tuples(st.just("name"), st.sampled_from(HOSTS), st.sampled_from(["gpu-01", "gpu_01", "other", "\x1b[2J", ""]))
REPEATS = st.tuples(st.just("again"), st.integers(0, 1000))
BURSTS = st.tuples(st.just("burst"), st.sampled_from(HOSTS), st.integers(1, 400), st.integers(-400, 400))
STEPS = st.lists(st.one_of(SAMPLES, SAMPLES, NAMES, REPEATS, BURSTS), max_size=25)


def working(at: int, seq: int) -> dict[str, Any]:
    """A sample with numbers for the tiers and processes that come and go."""
    gpus = [{"i": 0, "u": "GPU-a", "util_pct": (at * 7 + seq) % 101, "e_mJ": seq * 1000}, {"i": 1, "u": "", "p_mW": None}]
    here = [{"g": 0, "pid": 100 + seq // 20 % 2, "t0_ms": 5, "user": "ada", "mem": seq}, {"g": 1, "pid": 7, "uid": 3}]
    return {"int_ms": 1000, "cpu": {"tot_pm": seq, "load": [seq / 8]}, "gpu": gpus, "proc": here[: seq // 7 % 3]}


def written(steps: list[tuple[Any, ...]]) -> StatusLog:
    """A log with that history; log time goes on by a second a step."""
    log = StatusLog()
    for at, step in enumerate(steps):
        time_ns = START_NS + at * SECOND
        if step[0] == "sample":
            _, host, run, seq, offset_s = step
            event = sample_event(host, run, seq, working(at, seq), dt_ns=offset_s * SECOND)
            log.put([event], time_ns=time_ns, logged_at_ns=time_ns)
        elif step[0] == "name":
            log.put([registered(step[1], step[2])], time_ns=time_ns, logged_at_ns=time_ns)
        elif step[0] == "again":
            log.again(step[1])
        else:
            _, host, count, offset_s = step
            run = at.to_bytes(8, "big")
            events = [
                sample_event(host, run, seq, working(at, seq), dt_ns=(offset_s + seq) * SECOND) for seq in range(1, count + 1)
            ]
            log.put(events, time_ns=time_ns, logged_at_ns=time_ns + 1000 * SECOND)
    return log


def by_turns(records: list[Record]) -> list[Record]:
    """The same records, partitions taking turns."""
    return [record for _, _, record in sorted((record.offset, record.partition, record) for record in records)]


def stored_rows(folder: Path) -> Iterator[Any]:
    """Every row of every table but the ones that follow from when commits were made."""
    db = apsw.Connection(str(folder / "status-000001.db"), flags=apsw.SQLITE_OPEN_READONLY)
    for (table,) in list(db.execute("select name from sqlite_schema where type = 'table' order by name")):
        if table not in ("meta", "latest"):
            yield table, sorted(db.execute(f"select * from {table}"))
    db.close()


def model(records: list[Record]) -> dict[str, list[StoredSample]]:
    """The samples of each host by the words of the rules: a plain fold, no tables."""
    intakes = [Intake(STATUS_TOPIC, partition) for partition in range(PARTITIONS)]
    found: dict[str, list[StoredSample]] = {}
    seen = set()
    for record in records:
        taken = intakes[record.partition].take(record)
        for event in taken.events if isinstance(taken, Counted) else ():
            assert isinstance(taken, Counted)
            if event[0] == "host.sample" and (key := (event[1], event[4], event[5])) not in seen:
                seen.add(key)
                logged = taken.log_time_us * 1000
                time_ns = taken.header.time_ns + event[2]
                if time_ns > logged + 60 * SECOND:
                    time_ns = logged
                found.setdefault(event[1], []).append(StoredSample(time_ns, logged, *event[4:]))
    for samples in found.values():
        samples.sort(key=lambda stored: stored.time_ns)
    return found


def pages(reader: StatusReader, host: str, low: int, high: int, *, limit: int, step_ns: int = 0) -> Iterator[StoredSample]:
    """The samples of all pages of a range."""
    after = None
    while True:
        page = reader.page(host, low, high, limit=limit, step_ns=step_ns, after=after)
        yield from page.samples
        after = page.cursor
        if after is None:
            return


@settings(max_examples=25)
@given(STEPS, st.lists(st.integers(0, 12), max_size=6), st.integers(-500, 500), st.integers(0, 300), st.integers(1, 50))
def test_tables_are_a_function_of_the_log(
    steps: list[tuple[Any, ...]], splits: list[int], from_s: int, length_s: int, few: int
) -> None:
    """Any commits, restarts and repeated feeding give the same rows, and reading gives what a plain fold gives."""
    log = written(steps)
    with TemporaryDirectory() as temporary:
        once = feed(log, Path(temporary) / "once")
        parts = feed(log, Path(temporary) / "parts", splits, records=by_turns(log.records()))
        rows = list(stored_rows(once))
        assert list(stored_rows(parts)) == rows
        digest = table_digest(once)
        assert table_digest(parts) == digest
        assert table_digest(feed(log, once)) == digest, "fed the whole log once more"
        wanted = model(log.records())
        low, high = START_NS + from_s * SECOND, START_NS + (from_s + length_s) * SECOND
        with StatusReader(once) as reader:
            assert reader.latest(HOSTS).keys() == wanted.keys()
            for host, samples in wanted.items():
                assert reader.last(host, len(samples) + 1) == samples
                assert reader.last(host, few) == samples[-few:]
                assert reader.latest([host]) == {host: samples[-1]}
                inside = [stored for stored in samples if low <= stored.time_ns <= high]
                assert reader.between(host, low, high) == inside
                assert reader.between(host, low, high, few) == inside[:few]
                before = [stored for stored in samples if stored.time_ns <= low]
                assert reader.at(host, low) == (before[-1] if before else None)
                assert list(pages(reader, host, low, high, limit=few + 50)) == inside
                last_of_step = {stored.time_ns // (7 * SECOND): stored for stored in inside}
                assert list(pages(reader, host, low, high, limit=few + 20, step_ns=7 * SECOND)) == list(last_of_step.values())
            fleet = {entry.host.id: entry.sample for entry in reader.fleet_at(low)}
            for host in HOSTS:
                before = [stored for stored in wanted.get(host, ()) if stored.time_ns <= low]
                assert fleet.get(host) == (before[-1] if before else None)
            for host in HOSTS:
                samples = wanted.get(host, [])
                for points, length_ns in (
                    (1 << 20, SECOND),
                    (100, 7 * SECOND),
                    (11, MINUTE_NS),
                    (4, 3 * MINUTE_NS),
                    (1, HOUR_NS),
                ):
                    span_ns = points * length_ns if length_ns >= MINUTE_NS else 11 * MINUTE_NS
                    found = reader.series(host, low, low + span_ns, points)
                    assert found.length_ns == length_ns
                    first, last = low // length_ns, (low + span_ns) // length_ns
                    inside = [stored for stored in samples if first <= stored.time_ns // length_ns <= last]
                    assert found.slots == sum_up(inside, length_ns)
                assert reader.processes(host, 0, 1 << 62) == sorted(
                    processes_of(samples), key=lambda interval: (interval.start_ns, interval.key)
                )
            names = [row.name for row in reader.hosts()]
            assert len(set(names)) == len(names)
            for row in reader.hosts():
                assert reader.host(row.id) == reader.host(row.name) == row
