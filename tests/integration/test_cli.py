"""The command line as users and scripts meet it, in processes of its own."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil
import pytest

from dimint.assignment import ASSIGNMENT_PATH, Assignment, Group, PartitionPlace, encode
from dimint.cli import COMMANDS, main
from dimint.process_state import PROGRAMS, find_program
from dimint.registry.embedded import EmbeddedRegistry
from tests.support import forked

ROOT = Path(__file__).parent.parent.parent


class Shell:
    """Runs `dimint` with a data directory and environment of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        scripts = directory / "bin"
        scripts.mkdir()
        for name, entry in (("dimint", "main"), ("dimint_overlord", "overlord_main"), ("dimint_node", "node_main")):
            (scripts / name).write_text(f"import sys\nfrom dimint.cli import {entry}\nsys.exit({entry}())\n")
        self.scripts = scripts
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "DIMINT_DATA_DIR": str(directory / "data")}

    def command(self, *arguments: str | bytes, program: str = "dimint") -> list[str | bytes]:
        return [sys.executable, str(self.scripts / program), *arguments]

    def run(self, *arguments: str | bytes, program: str = "dimint", **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments, program=program),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            stdin=subprocess.DEVNULL,
            env={**self.environment, **environment},
            cwd=self.directory,
            timeout=50,
        )

    def quick(self, *arguments: str | bytes, **environment: str) -> "subprocess.CompletedProcess[str]":
        """The same where it does not matter how the program was started."""
        command = [sys.executable, "-m", "dimint", *map(os.fsdecode, arguments)]
        return forked.run(command, env={**self.environment, **environment})

    def error(self, *arguments: str | bytes, **environment: str) -> str:
        """The one line of a command that must fail for a reason the user can do something about."""
        done = self.quick(*arguments, **environment)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.startswith("dimint: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.removeprefix("dimint: ").removesuffix("\n")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell whose background programs end with the test."""
    found = Shell(tmp_path)
    yield found
    for process in psutil.process_iter():
        try:
            if str(found.scripts) in " ".join(process.cmdline()):
                process.kill()
        except psutil.Error:
            continue


def test_the_help_has_the_lines_of_the_original(shell: Shell) -> None:
    """`dimint` and `dimint help`: every line of the ancestor's help stands there as it was."""
    lines = [f"    dimint {words}" for words in ("help", "overlord help", "overlord list", "overlord start", "overlord stop")]
    for arguments in ((), ("help",)):
        done = shell.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(lines) <= set(done.stdout.splitlines())


@pytest.mark.parametrize("role", ["overlord", "node", "consumer", "web", "agent"])
def test_every_role_has_its_help(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`dimint ROLE help` and `dimint ROLE` list the four commands literally."""
    lines = {f"    dimint {role} {word}" for word in ("help", "list", "start", "stop")}
    for arguments in ((role, "help"), (role,)):
        assert main(arguments) == 0
        assert lines <= set(capsys.readouterr().out.splitlines())


def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With dashes or underscores in its name."""
    for name in COMMANDS:
        assert main((name.replace("_", "-"), "--help")) == 0
        assert capsys.readouterr().out.startswith("Usage: dimint ")


def test_list_has_the_form_of_the_original(shell: Shell) -> None:
    """One line a program, itself included, under the name dimint; `dimint_overlord list` is the same."""
    for program, arguments in (("dimint", ("overlord", "list")), ("dimint", ("node", "list")), ("dimint_overlord", ("list",))):
        script = str(shell.scripts / program)
        with subprocess.Popen(
            shell.command(*arguments, program=program), stdout=subprocess.PIPE, text=True, env=shell.environment
        ) as process:
            out, _ = process.communicate()
        own = f"psutil.Process(pid={process.pid}, name='dimint'), cmdline : {[sys.executable, script, *arguments]}"
        assert own in out.splitlines()
        assert process.returncode == 0


def test_list_as_json_and_long(shell: Shell) -> None:
    """For programs, and with the file that messages go to."""
    rows = json.loads(shell.run("overlord", "list", "--json").stdout)
    assert any(row["name"] == "dimint" and row["cmdline"][-1] == "--json" for row in rows)
    assert ", log : " in shell.run("overlord", "list", "--long").stdout


def test_stop_refuses_what_it_must(shell: Shell) -> None:
    """No pid, no number, nobody, somebody else's program: one line, and nothing is signalled."""
    assert shell.error("overlord", "stop") == "pid is needed"
    assert shell.error("overlord", "stop", "abc") == "'abc' is not a pid"
    assert shell.error("overlord", "stop", "12three") == "'12three' is not a pid"
    assert shell.error("overlord", "stop", "0") == "'0' is not a pid"
    assert shell.error("node", "stop", "4194305") == "there is no process 4194305"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert "is not a dimint process" in shell.error("overlord", "stop", str(other.pid))
        assert other.poll() is None
        other.communicate(b"\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("overlord", "nonsense"), "No such command 'nonsense'"),
        (("overlord", "start", "--prot_for_client=1"), "No such option '--prot_for_client'"),
        (("overlord", "start", "--port_for_client"), "requires an argument"),
        (("overlord", "start", "--port_for_client=70000"), "'70000' is not between 0 and 65535"),
        (("overlord", "run", "--port-for-client=x"), "'x' is not a whole number"),
        (("overlord", "start", "--config_path=/nonexistent"), "config file '/nonexistent': No such file or directory"),
        (("overlord", "start", "--config_path=/"), "config file /: is not a regular file"),
        (("overlord", "start", "--bind=0.0.0.0"), "give a --key_file, or --allow_plain"),
        (("overlord", "start", "--bind=\udcff\udcfe"), "is not a host name or address"),
        (("registry", "clear"), "add --yes"),
        (("rebuild", "everything"), "'everything' is not one of"),
        (("rebuild",), "Missing argument '{node|status|all}'"),
        (("up", "--nodes=0"), "'0' is not between 1 and 64"),
        (("up", "--hosts=2"), "2 simulated hosts need --simulate"),
        (("up", "--data_dir=/dev/null/x"), "name a directory that can be written"),
        (("node", "start", "--data_dir=/dev/null/x"), "name a directory that can be written"),
        (("web", "run", "--data_dir=/dev/null"), "data_dir: /dev/null"),
    ],
)
def test_wrong_requests_are_one_line(
    arguments: tuple[str, ...],
    part: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """No usage screen, no traceback: what is wrong, and exit code 2."""
    monkeypatch.setenv("DIMINT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("sys.stdin", StringIO())
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dimint: ")
    assert err.count("\n") == 1
    assert part in err


def test_what_only_the_child_knows_is_one_line_too(shell: Shell) -> None:
    """A start in the background ends with the child's own line; arguments need not be UTF-8."""
    assert "is not a host name or address" in shell.error("overlord", "start", b"--bind=\xff\xfe")


def test_wrong_environment_is_one_line(shell: Shell) -> None:
    """A variable that nothing reads is a spelling mistake."""
    assert shell.error("overlord", "start", DIMINT_PORT_FOR_CLIENTS="1") == (
        "'DIMINT_PORT_FOR_CLIENTS': no such setting; did you mean DIMINT_PORT_FOR_CLIENT?"
    )


def test_version(shell: Shell) -> None:
    """Of every program."""
    for program in ("dimint", "dimint_overlord"):
        done = shell.run("--version", program=program)
        assert done.stdout.startswith("dimint, version ")


def test_registry_shows_what_the_original_showed(shell: Shell) -> None:
    """Overlords, nodes, masters with their slaves under a tab; clear empties what is stale."""
    done = shell.quick("registry")
    assert done.stdout == "overlord list : []\nnode list : []\n"
    assert not (shell.directory / "data").exists(), "looking makes nothing"
    registry = EmbeddedRegistry(shell.directory / "data/registry")
    overlord = registry.join("overlord", "115.71.237.6:5556", {})
    node = registry.join("node", "ee4db710c82b312e0eee62ac9da024db", {})
    groups = (Group("ee4db710c82b312e0eee62ac9da024db", ("7f1c",)),)
    registry.put(ASSIGNMENT_PATH, encode(Assignment(1, groups, (PartitionPlace(0),))), version=0)
    shown = (
        "overlord list : ['115.71.237.6:5556']\n"
        "node list : ['ee4db710c82b312e0eee62ac9da024db']\n"
        "master node : ee4db710c82b312e0eee62ac9da024db\n"
        "\tslave node : 7f1c\n"
    )
    assert shell.quick("registry").stdout == shown
    assert shell.quick("registry", "clear", "--yes").returncode == 0
    assert shell.quick("registry").stdout == shown, "what lives is not stale"
    assert json.loads(shell.quick("registry", "--json").stdout)["groups"] == [
        {"master": "ee4db710c82b312e0eee62ac9da024db", "slaves": ["7f1c"]}
    ]
    overlord.leave()
    node.leave()
    done = shell.quick("registry", "clear", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert shell.quick("registry").stdout == "overlord list : []\nnode list : []\n"
    registry.close()


def test_clear_asks_on_a_terminal(shell: Shell) -> None:
    """No is no."""
    registry = EmbeddedRegistry(shell.directory / "data/registry")
    registry.put("x", b"", version=0)
    ours, theirs = pty.openpty()
    for answer, left in ((b"n\n", True), (b"y\n", False)):
        process = subprocess.Popen(
            shell.command("registry", "clear"),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=shell.environment,
        )
        os.write(ours, answer)
        out, _ = process.communicate(timeout=20)
        assert b"Remove stale entries" in out
        assert b"Traceback" not in out
        assert (registry.get("x") is not None) is left
    os.close(ours)
    os.close(theirs)
    registry.close()


def test_a_reader_that_goes_away_is_no_error_message(shell: Shell) -> None:
    """`dimint help | head -1`, and a closed stdout."""
    for _ in range(3):
        process = subprocess.Popen(
            shell.command("overlord", "start", "--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=shell.environment
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait()


def test_output_that_cannot_be_written_is_one_line(shell: Shell) -> None:
    """A full disk, and streams that were closed before the start, whose numbers no other file may get."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            shell.command("help"), stdout=full, stderr=subprocess.PIPE, env=shell.environment, text=True, timeout=50
        )
    assert (done.returncode, done.stderr) == (1, "dimint: No space left on device\n")
    for closed, status in (("<&- >&-", 0), ("<&- >&- 2>&-", 0)):
        line = " ".join(["exec", *map(shlex.quote, map(str, shell.command("registry"))), closed])
        done = subprocess.run(line, shell=True, stderr=subprocess.PIPE, env=shell.environment, text=True, timeout=50)
        assert (done.returncode, done.stderr) == (status, "")


def test_completion_scripts(shell: Shell) -> None:
    """The script of a shell, and what it calls: commands and flags."""
    for name in ("bash", "zsh", "fish"):
        assert "_DIMINT_COMPLETE" in shell.quick("completion", name).stdout
    done = shell.run(COMP_WORDS="dimint over", COMP_CWORD="1", _DIMINT_COMPLETE="bash_complete")
    assert "plain,overlord" in done.stdout


def test_bash_completes_commands_and_flags(shell: Shell) -> None:
    """The script in a real bash: what its completion function answers for words typed so far."""
    launcher = shell.scripts / "path" / "dimint"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, shell.command()))} "$@"\n')
    launcher.chmod(0o755)
    script = """
        eval "$(dimint completion bash)"
        complete -p dimint >/dev/null || exit 1
        for words in "dimint rebu" "dimint rebuild " "dimint node sta" "dimint get --port_for"; do
            COMP_WORDS=($words); [[ $words == *" " ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            _dimint_completion dimint "${COMP_WORDS[-1]}" ""
            echo "${COMPREPLY[@]}"
        done
    """
    environment = {**shell.environment, "PATH": f"{launcher.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["rebuild", "node status all", "start", "--port_for_client"]


def test_a_program_starts_in_the_background_and_stops(shell: Shell) -> None:
    """Start prints both pids once it listens, list and its log know it, stop ends it; a second one is refused by its lock."""
    done = shell.run("consumer", "start")
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.split()
    assert words[:3] == ["Hello", "from", "parent"]
    pid = int(words[4])
    program = find_program(pid)
    assert program is not None
    assert program.name == "dimint"
    assert program.cmdline[1:] == [str(shell.scripts / "dimint"), "consumer", "start"]
    log = str(shell.directory / "data/logs/consumer.log")
    assert f"pid={pid}, name='dimint'" in shell.run("consumer", "list", "--long").stdout
    assert program.log_path == log
    again = shell.run("consumer", "start")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    stopped = shell.run("consumer", "stop", str(pid))
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
    assert find_program(pid) is None
    assert "Traceback" not in Path(log).read_text()


def test_a_program_in_the_foreground_ends_with_ctrl_c(shell: Shell) -> None:
    """It prints its address first and no traceback last."""
    process = subprocess.Popen(
        shell.command("consumer", "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=shell.environment
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ip : ")
    deadline = time.monotonic() + 20
    registry = EmbeddedRegistry(shell.directory / "data/registry")
    while not registry.members("consumer") and time.monotonic() < deadline:
        time.sleep(0.02)
    registry.close()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_entry_points_are_the_known_programs() -> None:
    """What list and stop recognise is what is installed."""
    text = (ROOT / "pyproject.toml").read_text()
    for name in PROGRAMS:
        assert f'{name} = "dimint.cli:' in text
