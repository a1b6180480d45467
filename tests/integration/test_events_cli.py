"""`dimint events` on both kinds of log, as people, pipes and programs use it."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dimint.cli import main
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.log.port import Entry, Log
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from tests.support.replay_log import REAL, ROOT, WAIT_S, new_location, write_beats, write_sets

pytestmark = pytest.mark.timeout(120)


class Filled(NamedTuple):
    """A log with events of all topics, and what is in it."""

    location: str
    log: Log
    found: Genesis
    events: int


@pytest.fixture(scope="module", params=REAL)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    location = new_location(request.param, tmp_path_factory.mktemp("events"))
    log = open_log(location, clock=SystemClock())
    found = genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=SystemClock(), host="gpu-02", process="node")
    written = write_sets(log, found, 40)
    write_beats(log, found, 5)
    yield Filled(location, log, found, written + 5 + 1)
    log.close()


@pytest.fixture
def lines(filled: Filled, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with `--json`; its lines."""

    def call(*arguments: str) -> list[dict[str, Any]]:
        assert main(["events", f"--log={filled.location}", "--json", *arguments]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_everything_in_order(filled: Filled, lines: Any) -> None:
    """Every event once, by log time; fields have names, stored values are values."""
    found = lines()
    assert len(found) == filled.events == len({line["id"] for line in found})
    assert [line["log_time_us"] for line in found] == sorted(line["log_time_us"] for line in found)
    assert found[0]["kind"] == "cluster.genesis"
    assert all(type(line["fields"]["value"]) is int for line in found if line["kind"] == "kv.set")
    assert {line["by"]["client"] for line in found if line["kind"] == "kv.set"} == {None, "client-7"}


def test_positions_can_be_given_back(lines: Any) -> None:
    """A line's position as the start and as the end: nothing is lost or twice."""
    found = [line for line in lines() if line["position"].startswith("dimint.kv/1@")]
    middle = found[len(found) // 2]["position"]
    early, late = lines("--to", middle), lines("--from", middle)
    assert [line for line in early if line["position"].startswith("dimint.kv/1@")] == early
    assert early + late == found
    assert lines("--from", middle, "--topic", KV_TOPIC, "--limit=1") == late[:1]


def test_positions_of_all_topics_with_a_filter(lines: Any) -> None:
    """A kind that has one topic leaves the others' positions alone."""
    found = lines()
    ends: dict[str, int] = {}
    for line in found:
        place, _, offset = line["position"].partition("@")
        ends[place] = max(ends.get(place, 0), int(offset))
    everything = ",".join(f"{place}@{offset + 1}" for place, offset in ends.items())
    assert lines("--kind=kv.set", f"--to={everything}") == [line for line in found if line["kind"] == "kv.set"]


def test_times_as_bounds(lines: Any) -> None:
    """Log times, half open."""
    found = lines()
    cut = found[len(found) // 2]["log_time_us"]
    text = f"@{cut // 1_000_000}.{cut % 1_000_000:06}"
    assert lines("--to", text) == [line for line in found if line["log_time_us"] < cut]
    assert lines("--from", text) == [line for line in found if line["log_time_us"] >= cut]
    assert lines("--from", "-1h") == found
    assert lines("--to", "yesterday 14:00") == []


def test_filters_and_counts(filled: Filled, lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What fits all of the flags; --count says how many that is, from headers alone where nothing is filtered."""
    found = lines()

    def fits(line: dict[str, Any], kind: str = "", key: str = "", client: str = "") -> bool:
        return line["kind"].startswith(kind) and (line["key"] or "").startswith(key) and client in ("", line["by"]["client"])

    key = next(line["key"] for line in found if line["kind"] == "kv.set")
    cases: list[tuple[tuple[str, ...], list[dict[str, Any]]]] = [
        ((), found),
        (("--kind=kv.set", "--kind=overlord.*"), [line for line in found if line["kind"] in ("kv.set", "overlord.heartbeat")]),
        (("--kind=kv.set",), [line for line in found if line["kind"] == "kv.set"]),
        (("--kind=kv.set", "--topic=dimint.status"), []),
        (("--kind=from.tomorrow",), []),
        (("--key=k1*",), [line for line in found if fits(line, key="k1")]),
        ((f"--key={key}",), [line for line in found if line["key"] == key]),
        (("--key=127.0.0.1:5556",), [line for line in found if line["kind"] == "overlord.heartbeat"]),
        (("--by=client-7", "--kind=kv.set"), [line for line in found if fits(line, "kv.set", client="client-7")]),
        (("--source=gpu-02",), found[:1]),
        (("--source=gpu-02", "--by=overlord"), []),
        (("--topic=dimint.status",), [line for line in found if fits(line, "overlord.")]),
    ]
    for arguments, expected in cases:
        assert lines(*arguments) == expected, arguments
        assert lines(*arguments, "--count")[0]["events"] == len(expected), arguments
    assert main(["events", f"--log={filled.location}", "--count"]) == 0
    assert re.fullmatch(
        rf"(dimint\.\w+ +\d+ events in \d+ batches\n){{3}}all +{filled.events} events in \d+ batches\n", capsys.readouterr().out
    )


def test_lines_for_people_are_harmless(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    """Time, position, kind, key, who and what in one line; what would act on a terminal is escaped, in JSON too."""
    writer = BatchWriter(filled.log, clock=SystemClock(), host="evil\x1b[2Jhost", process="p\u202e")
    key = "esc\x1b]0;owned\x07\nnext"
    partition = filled.found.partition_of_key(key.encode())
    event = ["kv.set", key, 0, 0, None, b"M\xc4\x02\x00\xff", None, 0]
    at = writer.append_and_wait(Outgoing(KV_TOPIC, partition, (writer.by,), [event]), WAIT_S)
    writer.close()
    position = f"{KV_TOPIC}/{partition}@{at.offset}"
    for form in ("--table", "--json"):
        assert main(["events", f"--log={filled.location}", form, "--from", position]) == 0
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 1
        assert position in out
        assert "esc\\u001b]0;owned\\u0007\\nnext" in out
        assert all(char.isprintable() for char in out.rstrip("\n"))
        assert "AP8=" in out


def test_what_is_no_batch_is_counted_and_shown(filled: Filled, lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Passed over with a line on stderr; `deadletters list` says where and why."""
    offset = filled.log.append([Entry("dimint.status", 0, b"from somebody else")])[0].result(WAIT_S)
    assert main(["events", f"--log={filled.location}", "--limit=9999"]) == 0
    assert capsys.readouterr().err == "dimint: passed over 0 repeated batches and 1 dead letters (dimint deadletters list)\n"
    assert main(["deadletters", "list", f"--log={filled.location}", "--json"]) == 0
    dead = json.loads(capsys.readouterr().out)
    assert (dead["position"], dead["reason"], dead["bytes"]) == (f"dimint.status/0@{offset}", "foreign", 18)
    (count,) = lines("--count", "--topic=dimint.status")
    assert (count["events"], count["dead"]) == (5, 1)


def test_follow_prints_what_comes_until_interrupted(filled: Filled) -> None:
    """From now on without --from; Ctrl-C ends it without a traceback."""
    command = [sys.executable, "-m", "dimint", "events", f"--log={filled.location}", "--follow", "--json"]
    start = f"--from={KV_TOPIC}/0@0"
    child = subprocess.Popen([*command, start], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    new = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["position"] == f"{KV_TOPIC}/0@0"
        time.sleep(1.0)  # until the other one has found the end: what comes before that it need not show
        writer = BatchWriter(filled.log, clock=SystemClock(), host="late", process="p")
        barrier = Outgoing(KV_TOPIC, 0, (writer.by,), [["barrier", None, 0, 0]])
        last = [writer.append_and_wait(barrier, WAIT_S).offset for _ in range(3)][-1]
        writer.close()
        for each in (child, new):
            assert each.stdout is not None
            found = [json.loads(each.stdout.readline())]
            while found[-1]["position"] != f"{KV_TOPIC}/0@{last}":
                found.append(json.loads(each.stdout.readline()))
            assert all(line["kind"] == "barrier" for line in found[-3:])
        assert len(found) <= 3
    finally:
        for each in (child, new):
            each.send_signal(signal.SIGINT)
    for each in (child, new):
        try:
            _, errors = each.communicate(timeout=20)
        finally:
            each.kill()
        assert (each.returncode, errors.strip()) == (130, "")


def test_a_closed_pipe_ends_it_quietly(filled: Filled) -> None:
    """As with `| head -1`."""
    command = f"{sys.executable} -m dimint events --log={filled.location} --json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "soon"], "--from: 'soon' is not a time; write it like"),
        (["--to", "dimint.kv/x@1"], "--to: 'dimint.kv/x@1' is not a position; write it like dimint.kv/3@1234"),
        (["--follow", "--count"], "--follow does not end"),
        (["--json", "--table"], "give one of --table and --json"),
    ],
)
def test_wrong_questions(filled: Filled, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    assert main(["events", f"--log={filled.location}", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dimint: {text}")
    assert error.count("\n") == 1


def test_a_log_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking must not make one."""
    assert main(["events", f"--log={tmp_path}/nothing"]) == 2
    assert "there is no log in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
