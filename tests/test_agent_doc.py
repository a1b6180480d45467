"""docs/agent.md says what the agent does: its tiers, its states, its deadlines and what it shows of command lines."""

import re
import shlex
from pathlib import Path

from dimint.limits import PROCESS_NAME_MAX_CHARS
from dimint.producers import gpu_watch, schedule
from dimint.producers.gpu_texts import GPU_TEXTS
from dimint.producers.processes import redacted
from dimint.producers.spool import SPOOL_MAX_BYTES
from dimint.sample import GPU_SUPPORT
from dimint.settings import SETTINGS

TEXT = (Path(__file__).parent.parent / "docs" / "agent.md").read_text()


def _rows(name: str) -> list[list[str]]:
    """Cells of the table between the marks of a name."""
    block = TEXT.split(f"<!-- {name}:", 1)[1].split(f"<!-- end of {name} -->", 1)[0]
    rows = [line for line in block.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_tiers() -> None:
    """Every tier with its period."""
    every = {"fast": "`interval`", "processes": f"{schedule.PROCESSES_S:g} s", "slow": f"{schedule.SLOW_S:g} s"}
    every["static"] = f"{schedule.STATIC_S:g} s"
    assert {row[0]: row[1] for row in _rows("tiers")} == every
    assert f"{schedule.COST_SHARE:.0%}".replace("%", " %") in TEXT


def test_redaction() -> None:
    """The examples are what the agent really publishes."""
    rows = _rows("redaction")
    assert len(rows) >= 5
    for line, published in rows:
        found = redacted(shlex.split(line.strip("`")))
        assert published == ("nothing" if found is None else f"`{found}`"), line
    assert f"cut at {PROCESS_NAME_MAX_CHARS} characters" in TEXT
    (choices,) = (row.choices for row in SETTINGS if row.name == "command_lines")
    assert all(f"- `{choice}`" in TEXT for choice in choices)


def test_states_and_deadlines() -> None:
    """Each state in the words that the doctor uses, and the numbers of the code."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT, re.MULTILINE))
    assert {state: rows.get(state) for state in GPU_SUPPORT} == {state: GPU_TEXTS[state] for state in GPU_SUPPORT}
    assert f"deadline of {gpu_watch.DEADLINE_S:g} s" in TEXT
    assert f"after {gpu_watch.RETRY_FIRST_S:g} s, then ever more rarely, at most every {gpu_watch.RETRY_MOST_S:g} s" in TEXT
    assert f"at most {SPOOL_MAX_BYTES >> 20} MiB" in TEXT
