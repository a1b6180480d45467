"""README, ARCHITECTURE, CHANGELOG and docs/ say what is so: their commands, examples, names and links."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import click
import pytest

import dimint
from dimint.cli import COMMANDS, root
from dimint.consumers.rows import HostEvent
from dimint.webapp.alerts import what_is_wrong
from dimint.webapp.as_lines import Frame, data_line, line_view
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.models import Snapshot
from tests.support.fleet import busy_sample
from tests.support.hosts import host, ns
from tests.support.system import System

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all examples."""
    with System(tmp_path_factory.mktemp("docs") / "data") as started:
        yield started


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for named, body in found if named == language]


def commands_of(text: str) -> list[list[str]]:
    """The words after `dimint` wherever it stands in code as a command."""
    pieces = [*re.findall(r"`([^`\n]+)`", text), *(line for block in blocks(text) for line in block.splitlines())]
    found = []
    for piece in pieces:
        match = re.match(r"(?:\$ )?(?:\.venv/bin/)?dimint (.*)", piece)
        if match:
            found.append(re.split(r"\s+#", match.group(1))[0].split())
    return found


def read_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words left over."""
    command: click.Command = root
    context = click.Context(root)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        assert inner is not None, words
        command, words = inner, words[1:]
    return command, words


def run_example(code: str, system: System) -> subprocess.CompletedProcess[str]:
    """Run a Python example of README with this system's port for the default one."""
    code = code.replace("127.0.0.1:5556", f"127.0.0.1:{system.client_port}")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30)


# --- commands -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    """Every `dimint …` that a document shows names a command of ours, and its flags are flags of it."""
    for words in commands_of(path.read_text()):
        command, rest = read_command([word for word in words if word not in {"…", "NAME"}])
        flags = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        flags |= set(command.get_help_option_names(click.Context(command)))
        for word in rest:
            if word.startswith("--") and len(word) > 2:
                assert word.partition("=")[0] in flags, (path.name, words)


def test_readme_names_every_kind_of_command() -> None:
    """The table of programs has a row for every group of commands."""
    named = " ".join(re.findall(r"^\| (`.*?) \|", README, re.MULTILINE))
    for name, row in COMMANDS.items():
        if row[0] in {"dimint.cli_role", "dimint.cli_up", "dimint.cli_status", "dimint.cli_registry", "dimint.cli_rebuild"}:
            assert re.search(rf"`dimint {name}\b", named) or name == "agent", name
    assert "`dimint-produce`" in named


def test_make_targets_exist() -> None:
    """Whatever follows `make` in a document is a target, and what ARGS gives to `dimint up` is understood."""
    targets = set(" ".join(re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert {"up", "test"} <= set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets
    for given in re.findall(r'make up ARGS="([^"]*)"', text):
        read_command(["up"])[0].make_context("up", shlex.split(given))


# --- the first minute -----------------------------------------------------------------------------------------------
def test_ready_line(system: System) -> None:
    """The ready line has the form that README shows: the same words around ports, directory and seconds."""
    (shown,) = [line for block in blocks(README) for line in block.splitlines() if line.startswith("ready: ")]

    def form(line: str) -> str:
        return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"data \S+,", "data D,", line.strip()))

    assert form(shown) == form(system.ready_line)


def test_shell_session(system: System) -> None:
    """The commands of the first minute print what README shows under them."""
    (session,) = [block for block in blocks(README) if "$ .venv/bin/dimint" in block]
    environment = {**os.environ, "DIMINT_PORT_FOR_CLIENT": str(system.client_port)}
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        line, _, expected = step.partition("\n")
        program, *words = shlex.split(line)
        if program == ".venv/bin/dimint":
            command = [sys.executable, "-m", "dimint", *words]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
            assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_python_examples(system: System) -> None:
    """They run as they stand, and print what the comment at their end says."""
    examples = blocks(README, "python")
    assert len(examples) == 2
    for code in examples:
        done = run_example(code, system)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() == code.rstrip().rpartition("  # ")[2]


def test_view_is_the_golden_one() -> None:
    """The picture of the terminal view is the renderer's own."""
    (picture,) = [block for block in blocks(README) if "| host   " in block]
    golden = (ROOT / "tests/golden/terminal_status.txt").read_text().splitlines()
    rows = picture.splitlines()[1:]
    assert rows[0].startswith("+--")
    assert set(rows) <= set(golden)


def test_rows_are_the_renderers_own() -> None:
    """The picture of the view for many hosts is what the renderer makes of three hosts and an XID."""
    (picture,) = [block for block in blocks(README) if "view=rows" in block]
    hosts = [
        host(name, busy_sample(number, 3, gpus)) for name, number, gpus in (("gpu_01", 1, 8), ("gpu_02", 2, 8), ("gpu_03", 5, 4))
    ]
    now_ns = ns("2018/12/03 23:17:00")
    assert hosts[1].newest is not None
    fields = {"xid": 79, "uuid": hosts[1].newest.gpus[3].uuid}
    xid = HostEvent(hosts[1].id, 1, "gpu.xid", now_ns - 20 * 60 * 1_000_000_000, now_ns, fields)
    wrong = what_is_wrong(Snapshot(1, tuple(hosts), {}, 0, None, "", (), (xid,)), hosts, now_ns)
    data = data_line(ns("2018/12/03 23:16:59"), now_ns, hosts, TerminalStyle(UTC, 80))
    assert picture.splitlines()[1:] == [line.text for line in line_view("rows", Frame(hosts, now_ns, 80, data, None, 0, *wrong))]


# --- names, links, versions -----------------------------------------------------------------------------------------
def test_architecture_names_what_exists() -> None:
    """Every module and folder in the source tour is there, and every package and backend has its row."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tour = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    assert len(tour) > 8
    named: set[Path] = set()
    for cell in tour:
        folder = Path()
        for name in re.findall(r"`([^`]+)`", cell):
            path = Path(name) if "/" in name else folder / name
            folder = path if name.endswith("/") else path.parent
            matches = list(ROOT.glob(str(path)))
            assert matches, name
            named.update(match.relative_to(ROOT) for match in matches)
    assert {Path(name) for name in ("overlord", "node", "producers", "consumers", "webapp")} <= named
    assert {Path("dimint", name) for name in ("log", "registry", "client")} <= named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(path: Path) -> None:
    """Paths of this repository that a document names lead somewhere."""
    folders = "benchmarks|consumers|dimint|docs|node|overlord|producers|tests|webapp"
    for name in re.findall(rf"`((?:{folders})/[\w/.*-]+)`", path.read_text()):
        assert list(ROOT.glob(name)), (path.name, name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Links inside the repository: the file is there, and so is the heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.is_file(), (path.name, target)
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
        assert not heading or heading in anchors, (path.name, target)


def test_versions_agree() -> None:
    """The package, its metadata and the changelog's newest entry have one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == dimint.__version__
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert dimint.__version__ in newest.group(1)


def test_python_version_is_the_one_needed() -> None:
    """README asks for what the package asks for, and the sources are read by that grammar."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"({needed.removeprefix('>=')} or later)" in README
    version = tuple(map(int, needed.removeprefix(">=").split(".")))
    assert len(version) == 2
    for path in (ROOT / "dimint").rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(version[0], version[1]))
