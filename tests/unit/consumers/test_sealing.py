"""Which rows go into which chunk, and what a table looks like after late samples."""

import random
from pathlib import Path

import apsw
from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.reading import StatusReader
from dimint.consumers.rows import unseal
from dimint.consumers.sealing import CHUNK_MAX_BYTES, CHUNK_MAX_SAMPLES, MERGES_MAX, ChunkSpan, Group, group_rows, split_sizes
from tests.support.samples import START_NS, host_id, sample_event
from tests.support.status_log import StatusLog, feed

ONE = host_id(1)
SECOND = 1_000_000_000


def test_rows_go_where_they_belong() -> None:
    """Inside a chunk, between two, after the last, before the first."""
    first, second = ChunkSpan((10, 0), 20), ChunkSpan((40, 9), 50)
    rows = [(5, 1), (12, 2), (20, 3), (30, 4), (35, 5), (40, 8), (40, 10), (51, 11), (60, 12)]
    assert group_rows(rows, [first, second]) == [
        Group(None, [(5, 1)]),
        Group(first, [(12, 2), (20, 3)]),
        Group(None, [(30, 4), (35, 5), (40, 8)]),
        Group(second, [(40, 10)]),
        Group(None, [(51, 11), (60, 12)]),
    ]
    assert group_rows([(1, 1)], []) == [Group(None, [(1, 1)])]


def test_work_of_one_seal_is_bounded() -> None:
    """Rows that would open more chunks than allowed stay where they are."""
    chunks = [ChunkSpan((10 * at, at), 10 * at + 5) for at in range(20)]
    groups = group_rows([(10 * at + 1, 100 + at) for at in range(20)], chunks)
    assert [group.into for group in groups] == chunks[:MERGES_MAX]


@given(st.lists(st.sampled_from([1, 2000, CHUNK_MAX_BYTES // 3, CHUNK_MAX_BYTES + 1]), max_size=40), st.integers(0, 1500))
def test_chunks_keep_to_their_bounds(sizes: list[int], more: int) -> None:
    """Every sample is in one chunk, and only a single one may be larger than a chunk."""
    sizes += [1] * more
    at = 0
    for count in split_sizes(sizes):
        assert 1 <= count <= CHUNK_MAX_SAMPLES
        assert count == 1 or sum(sizes[at : at + count]) <= CHUNK_MAX_BYTES
        at += count
    assert at == len(sizes)


def test_a_drained_spool_lands_in_its_place(tmp_path: Path) -> None:
    """Samples that come hours late, in order and out of order, leave chunks that do not overlap and are known by their times."""
    log = StatusLog()
    times = [*range(1000), *range(3000, 4000), *range(1000, 3000)]
    late = list(range(500, 3500, 7))
    random.Random(5).shuffle(late)
    for seq, at in enumerate(times, 1):
        log.put([sample_event(ONE, b"in order", seq, {"at": at}, dt_ns=at * SECOND)], logged_at_ns=START_NS + 9000 * SECOND)
    for seq, at in enumerate(late, 1):
        log.put([sample_event(ONE, b"shuffled", seq, {"at": at}, dt_ns=at * SECOND)], logged_at_ns=START_NS + 9000 * SECOND)
    with StatusReader(feed(log, tmp_path)) as reader:
        assert [stored.sample["at"] for stored in reader.last(ONE, 9999)] == sorted(times + late)
        between = reader.between(ONE, START_NS + 900 * SECOND, START_NS + 3100 * SECOND)
        assert [stored.sample["at"] for stored in between] == [at for at in sorted(times + late) if 900 <= at <= 3100]
    db = apsw.Connection(str(tmp_path / "status-000001.db"), flags=apsw.SQLITE_OPEN_READONLY)
    of_chunks = f"select c.timestamp, n, until, blob from chunks c join host_{ONE} using (n) where host = '{ONE}' order by 1, 2"
    rows = list(db.execute(of_chunks))
    assert db.execute(f"select count(*) from host_{ONE} where sealed = 1").get == len(rows)
    oldest = f"select min(timestamp) from host_{ONE} where sealed = 0"
    assert db.execute("select single_ns from latest").get == db.execute(oldest).get
    db.close()
    end = (-1, -1)
    for time, n, until, blob in rows:
        keys = [(stored.time_ns, number) for number, stored in unseal(blob)]
        assert keys == sorted(keys)
        assert keys[0] == (time, n) > end
        assert keys[-1][0] == until
        end = keys[-1]
    assert sum(len(unseal(row[3])) for row in rows) > 3500
