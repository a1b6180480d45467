"""docs/replay.md: its example runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

from dimint.events import KV_TOPIC
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.log.reading import Counted
from dimint.replay import Stream, events_of, select
from dimint.system_clock import SystemClock
from tests.support.replay_log import write_sets

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "replay.md").read_text()


def test_the_example_counts_what_was_written(tmp_path: Path) -> None:
    """Run twice it says the same: nothing counts again. Then it goes on with what came."""
    (code,) = re.findall(r"<!-- example: .*? -->\n```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    log = open_log(tmp_path / "log", clock=SystemClock())
    found = genesis(log, wanted=GenesisSettings(), clock=SystemClock(), host="h", process="t")
    for seed in (1, 2):
        write_sets(log, found, 40, seed=seed)
        sets = 0
        for item in Stream(log, select(log, topics=[KV_TOPIC])).history():
            assert isinstance(item.taken, Counted)
            sets += sum(event.kind == "kv.set" for event in events_of(item.place, item.taken))
        for _ in range(2):
            command = [sys.executable, "-c", code, str(tmp_path / "log"), str(tmp_path / "writers.sqlite")]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
            assert (done.returncode, done.stdout, done.stderr) == (0, f"gpu-01 {sets}\n", "")
    log.close()
