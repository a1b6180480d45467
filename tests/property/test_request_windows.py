"""Request windows say what a dumb list of everything that ever happened says."""

from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.dedupe import FORGOTTEN, FREE, SUPERSEDED, RequestWindows

DAY_US = 24 * 3600 * 1_000_000


class Table:
    """Rows as a store keeps them, changed only when the windows are told to."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def windows(self) -> RequestWindows:
        return RequestWindows(self.rows.get, self._scan)

    def save(self, windows: RequestWindows, now_us: int) -> None:
        for key, row in windows.take_changes(now_us).items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def _scan(self, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return [(key, self.rows[key]) for key in sorted(self.rows) if key.startswith(prefix)][:limit]


class Model:
    """All requests of one client's present life."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, bytes]] = []
        self.last_us = 0

    def find(self, seq: int, now_us: int) -> bytes | int:
        if self.settled and now_us - self.last_us > DAY_US:
            self.settled = []
        highest = max((known for known, _ in self.settled), default=0)
        if seq > highest:
            return FREE
        in_slot = [(known, outcome) for known, outcome in self.settled if known % 256 == seq % 256]
        if in_slot and in_slot[-1][0] == seq:
            return in_slot[-1][1]
        return SUPERSEDED if seq > highest - 256 else FORGOTTEN


_steps = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"ab", b"x" * 64]),
        st.one_of(st.integers(1, 12), st.integers(1, 1200)),
        st.sampled_from([0, 0, 1, 3600 * 1_000_000, DAY_US // 2, DAY_US, DAY_US + 1]),
        st.sampled_from(["", "", "save", "reopen"]),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(_steps)
def test_windows_agree_with_the_list_of_everything(steps: list[tuple[bytes, int, int, str]]) -> None:
    """Whatever is saved, loaded, cached or collected in between makes no difference."""
    table = Table()
    windows = table.windows()
    models: dict[bytes, Model] = {}
    now_us = 0
    for number, (client, seq, step_us, then) in enumerate(steps):
        now_us += step_us
        model = models.setdefault(client, Model())
        expected = model.find(seq, now_us)
        found = windows.find(client, seq, now_us)
        assert found == expected
        if found == FREE and isinstance(found, int):
            outcome = b"outcome %d" % number
            windows.settle(client, seq, outcome, now_us)
            model.settled.append((seq, outcome))
            model.last_us = now_us
        if then:
            table.save(windows, now_us)
        if then == "reopen":
            windows = table.windows()


_Batch: TypeAlias = tuple[list[tuple[int, int | None]], int, bool]
"""Requests as (place of the client, seq), how much later it is, whether the rows are saved after it."""
_CLIENTS = (b"a", b"ab", None, b"a")
_seqs = st.one_of(st.none(), st.integers(1, 12), st.integers(1, 600))
_batches = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 3), _seqs), min_size=1, max_size=6),
        st.sampled_from([0, 1, DAY_US, DAY_US + 1]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(_batches)
def test_a_batch_at_once_is_its_requests_one_after_the_other(batches: list[_Batch]) -> None:
    """What `all_free` agrees to is free one by one, too, and leaves the same rows."""
    at_once, one_by_one = Table(), Table()
    windows, reference = at_once.windows(), one_by_one.windows()
    now_us = 0
    for number, (requests, step_us, save) in enumerate(batches):
        now_us += step_us
        outcomes = [b"%d/%d" % (number, place) for place in range(len(requests))]
        agreed = windows.all_free(_CLIENTS, requests, now_us)
        if agreed:
            windows.settle_all([(place, seq) for place, seq in requests if seq is not None], outcomes, now_us)
        free = []
        for (place, seq), outcome in zip(requests, outcomes, strict=True):
            client = _CLIENTS[place]
            if client is None or seq is None:
                free.append(False)
                continue
            free.append(reference.find(client, seq, now_us) is FREE)
            if free[-1]:
                reference.settle(client, seq, outcome, now_us)
            if not agreed and windows.find(client, seq, now_us) is FREE:
                windows.settle(client, seq, outcome, now_us)
        two_places = {0, 3} <= {place for place, _ in requests}
        assert agreed == (all(free) and not two_places)
        if save:
            at_once.save(windows, now_us)
            one_by_one.save(reference, now_us)
            assert at_once.rows == one_by_one.rows


def test_rows_of_quiet_clients_are_removed() -> None:
    """Many clients that come once leave nothing behind when a day of log time has passed."""
    table = Table()
    windows = table.windows()
    for number in range(300):
        client = b"client %d" % number
        assert windows.find(client, 1, 5) == FREE
        windows.settle(client, 1, b"x", 5)
    table.save(windows, 5)
    assert len(table.rows) == 900
    for hour in range(1, 40):
        table.save(windows, hour * 3600 * 1_000_000)
    assert table.rows == {}


def test_memory_stays_bounded() -> None:
    """What is stored is let go of when it gets much."""
    table = Table()
    windows = table.windows()
    for number in range(110_000):
        client = b"%d" % number
        windows.find(client, 1, 5)
        windows.settle(client, 1, b"x", 5)
    table.save(windows, 5)
    assert windows.find(b"7", 1, 6) == b"x"
    assert len(windows._windows) == 1
