"""The historian's answers, by an index alone."""

from functools import partial
from itertools import cycle
from pathlib import Path

from dimint.batch import encode
from dimint.clock import ManualClock
from dimint.consumers.historian import answer
from dimint.door_past import Ask
from dimint.events import KV_TOPIC
from dimint.log.opening import GenesisSettings, genesis
from dimint.log.port import Entry
from dimint.replay.history import HistoryIndex
from dimint.testing import memory_log
from tests.support.kv_model import PEOPLE


def test_pages_end_when_it_takes_too_long(tmp_path: Path) -> None:
    """However early pages end, with rows or without any, together they are the whole answer."""
    log = memory_log()
    genesis(log, wanted=GenesisSettings(kv_partitions=1), clock=ManualClock(), host="h", process="p")
    keys = [f"key-{number:03d}" for number in range(60)]
    for number, changed in ((1, keys), (2, keys[30:33])):
        events = [["kv.set", key, 0, 0, None, b"J%d" % number, None, 0] for key in changed]
        record = encode(b"w" * 16, number, 0, PEOPLE, events, logged_at_ns=number * 1_000_000_000)
        log.append([Entry(KV_TOPIC, 0, record)])[0].result()
    with HistoryIndex(tmp_path, log.describe().generation) as index:
        index.catch_up(log)
        for kind, wanted in (("diff", keys[30:33]), ("scan", keys)):
            for every in (1, 7):
                found, after, empty = [], None, 0
                while True:
                    times_up = cycle([False] * (every - 1) + [True])
                    ask = Ask(1, kind, "key", 1_000_000, 2_000_000, 10, after)
                    told = answer(index, ask, enough=partial(next, times_up))
                    found += [after.key for _, after in told.rows if after is not None]
                    empty += not told.rows
                    after = told.next
                    if after is None:
                        break
                assert found == wanted
                assert empty > 0 or kind == "scan"
