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


SHOWN_BY: dict[str, tuple[str, ...]] = {
    "has no library": ("test_faults::test_a_driver_that_cannot_be_asked", "test_gpu_watch::test_driver_that_comes_later"),
    "is not initialised": ("test_faults::test_a_driver_that_cannot_be_asked",),
    "has no GPU": ("test_faults::test_a_driver_that_cannot_be_asked",),
    "counts one GPU less": (
        "test_faults::test_a_driver_that_goes_and_comes",
        "test_gpu_states::test_a_gpu_that_the_driver_forgot_is_missing_also_after_a_restart",
    ),
    "loses a GPU": ("test_gpu::test_gpu_lost_midway", "test_gpu::test_gpu_lost_before_the_start", "lost", "must be reset"),
    "does not return from a call": (
        "test_gpu_watch::test_call_that_never_returns",
        "test_gpu_watch::test_process_that_cannot_be_killed",
    ),
    "does not return from its initialisation": ("test_gpu_watch::test_initialisation_that_never_returns",),
    "takes the reading process down": ("test_gpu_watch::test_reader_that_crashes",),
    "fails in passing": ("transient {code}",),
    "takes the rights away": ("test_gpu::test_gpu_without_rights",),
    "does not support a call": ("{call} {code}", "field {field} unknown to the driver"),
    "knows a newer or an older form": (
        "only the old memory call", "old temperature call", "old reasons call", "test_gpu::test_older_calls_stand_in",
        "test_gpu_processes::test_driver_older_than_its_library",
    ),
    "shares the host's memory": ("memory of the host", "memory of 0 bytes"),
    "does not let the memory": ("memory not permitted", "test_gpu::test_mig_with_holes"),
    "knows only some of many values": ("field {field} fails", "test_gpu::test_fields_fail_one_by_one"),
    "gives limits as a margin": ("no threshold", "test_gpu::test_margin_where_there_is_no_threshold"),
    "tells power as a mean": ("no mean of power", "no power", "no energy"),
    "runs fans": ("fan above 100 %", "passive cooling"),
    "has no ECC": ("no ECC memory", "no row remapping", "no throttle counters"),
    "gives a name that is no text": ("a name that is no text",),
    "has process lists": ("test_gpu_processes::test_process_lists_of_every_version",),
    "claims millions of processes": (
        "test_gpu_processes::test_process_list_that_fails_is_not_empty",
        "test_gpu_processes::test_process_rows_that_cannot_be",
    ),
    "does not tell a process's memory": ("test_gpu_processes::test_process_lists_of_every_version",),
    "cannot list processes": ("no process lists", "test_gpu_processes::test_process_list_that_fails_is_not_empty"),
    "gives old samples of shares": ("test_gpu_processes::test_process_shares",),
    "may not tell shares": ("test_gpu_processes::test_shares_that_cannot_be_read_are_named",),
    "has MIG instances": ("test_gpu::test_mig_with_holes",),
    "reports an XID": ("test_gpu_watch::test_xids_are_told",),
    "is asleep": ("test_gpu_watch::test_sleeping_gpus_are_not_woken",),
    "is slower than a sample may wait": ("test_faults::test_a_driver_that_is_slow_hides_no_gpu",),
    "cannot be asked about a GPU that is split": (
        "test_gpu_states::test_mig_instances_of_a_gpu_that_cannot_be_asked_stay", "test_gpu::test_mig_with_holes",
    ),
    "names pids": ("test_host::test_pids_of_another_namespace_mean_nothing_here", "test_orphans::test_what_belongs_to_nobody"),
}  # fmt: skip
"""How each row of the faults begins → the tests that show it, or names of faults in test_faults.py's table."""


def test_faults() -> None:
    """Every row names tests that there are, and every row of the tables has one."""
    told = [row[0] for row in _rows("faults")]
    assert len(told) == len(SHOWN_BY)
    assert [row for row, begins in zip(told, SHOWN_BY, strict=True) if not row.startswith(begins)] == []
    folder = Path(__file__).parent / "unit" / "producers"
    table = (folder / "test_faults.py").read_text()
    for tests in SHOWN_BY.values():
        for test in tests:
            file, _, name = test.rpartition("::")
            there = f"def {name}(" in (folder / f"{file}.py").read_text() if file else f'"{test}"' in table
            assert there, test
