"""The rule that makes each batch count once."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.dedupe import WriterRow, WriterTable
from dimint.limits import WRITER_KEEP_S

W1, W2 = b"1" * 16, b"2" * 16
KEEP_US = WRITER_KEEP_S * 1_000_000


@given(st.lists(st.tuples(st.sampled_from([W1, W2]), st.integers(1, 9)), max_size=30), st.integers(0, 30))
def test_each_writers_numbers_only_grow(batches: list[tuple[bytes, int]], commit_at: int) -> None:
    """Against the plainest model, with the table stored by its changes and restored in the middle."""
    table, stored = WriterTable(), dict[bytes, WriterRow]()
    last: dict[bytes, int] = {}
    for index, (writer, number) in enumerate(batches):
        if index == commit_at:
            for changed, row in table.take_changes():
                assert row is not None
                stored[changed] = row
            table = WriterTable(stored.items())
        expected = number > last.get(writer, 0)
        assert table.counts(writer, number) == expected
        assert table.take(writer, number, log_time_us=index) == expected
        if expected:
            last[writer] = number
        assert table.last(writer) == last.get(writer, 0)
    assert {writer: row.number for writer, row in table} == last


def test_changes_are_told_once() -> None:
    """A commit stores what changed since the one before, dropped rows as None."""
    table = WriterTable()
    table.take(W2, 1, log_time_us=5)
    table.take(W1, 4, log_time_us=0)
    assert table.take_changes() == [(W1, WriterRow(4, 0)), (W2, WriterRow(1, 5))]
    assert table.take_changes() == []
    assert not table.take(W1, 4, log_time_us=9)
    assert table.take_changes() == []
    table.forget(KEEP_US + 1)
    assert table.take_changes() == [(W1, None)]
    assert len(table) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2 * KEEP_US)), max_size=30))
def test_forgetting_is_exact(steps: list[tuple[int, int]]) -> None:
    """After `forget` no row is older than allowed, and none that is younger is gone."""
    table = WriterTable()
    now = 0
    rows: dict[bytes, int] = {}
    for number, (who, step) in enumerate(steps, 1):
        now += step
        writer = bytes([who]) * 16
        table.take(writer, number, log_time_us=now)
        rows[writer] = now
        table.forget(now)
        assert {writer for writer, _ in table} == {writer for writer, at in rows.items() if at >= now - KEEP_US}
