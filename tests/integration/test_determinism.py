"""`dimint verify --determinism`: two versions of the code over one log, and the first place where they differ."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.log.opening import find_genesis
from tests.support.replay_log import REAL, ROOT, made_log, new_location, write_sets

OTHER_VERSION = """
import sys
from dimint.node import fold
from dimint.cli import main
from dimint.node.keyspace import Keyspace

put = Keyspace.put

def wrong(self, key, value, expires_us, now_us):
    return put(self, key, b"J7" if key == b"k18" else value, expires_us, now_us)

Keyspace.put = wrong
sys.exit(main(sys.argv[1:]))
"""
"""As a version with a mistake would be: a key gets another value than the log says."""


@pytest.mark.parametrize("backend", REAL)
def test_versions_are_compared(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same code: the same, also when the log has grown. Another one: the first difference by position and key."""
    location = new_location(backend, tmp_path)
    log = made_log(location, 60, 30)
    where = [f"--log={location}", f"--data_dir={tmp_path / 'data'}"]
    command = ["verify", f"--determinism={tmp_path / 'file'}", "--every=10", *where]
    assert main(command) == 0
    assert "lines, written by 0." in capfd.readouterr().out
    found = find_genesis(log)
    assert found is not None
    write_sets(log, found, 10, seed=5)
    log.close()
    assert main(command) == 0
    assert "(this code): the same in " in capfd.readouterr().out

    other = subprocess.run([sys.executable, "-c", OTHER_VERSION, *command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert other.returncode == 1, other.stderr
    assert "key 'k18': the file has row '" in other.stdout
    position = other.stdout.partition("up to ")[2].partition(",")[0]
    with gzip.open(tmp_path / "file", "rt") as file:
        lines = [json.loads(line) for line in file]
    (first, *_) = [line["at"] for line in lines[1:] if "k18" in line.get("rows", {})]
    assert position == first
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("file", "verify"))) == ["file"]


def test_a_difference_in_the_status_tables_names_the_host(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A line of a host that does not fit, and files that are none, or of another log."""
    made_log(str(tmp_path / "log"), 3, 30).close()
    made_log(str(tmp_path / "other"), 3, 1).close()
    file = tmp_path / "file"
    command = ["verify", f"--determinism={file}", f"--data_dir={tmp_path / 'log'}", "--every=2"]
    assert main([*command, "--json"]) == 0
    with gzip.open(file, "rt") as stream:
        lines = [json.loads(line) for line in stream]
    at, host = next((at, host) for at, line in enumerate(lines) for host in line.get("rows", {}) if len(host) == 32)

    def rewrite() -> None:
        with gzip.open(file, "wt") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)
        capfd.readouterr()

    assert lines[-1]["at"] == "the status tables"
    lines[-1]["digest"] = "0" * 32
    rewrite()
    assert main(command) == 1
    assert "the status tables: their rows differ from the file's, though what was written" in capfd.readouterr().out
    lines[0]["tables_format"] = 3
    rewrite()
    assert main(command) == 0
    assert "the same in" in (said := capfd.readouterr().out)
    assert "; rows of status tables of format 3 and " in said
    lines[at]["rows"][host] = "0" * 16
    rewrite()
    assert main([*command, "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["problem"].startswith(
        f"up to {lines[at]['at']}, key '{host}': the file has row '0000"
    )
    assert main(["verify", f"--determinism={file}", f"--data_dir={tmp_path / 'other'}"]) == 1
    assert "is of log" in capfd.readouterr().err
    for content in (b"", b"x", file.read_bytes()[:100], gzip.compress(b"[]\n"), gzip.compress(b'{"determinism": 9}\n')):
        file.write_bytes(content)
        assert main(command) == 1
        assert len(capfd.readouterr().err.splitlines()) == 1
