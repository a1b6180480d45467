"""The units of deploy/systemd: read everywhere, and judged by systemd itself where there is one."""

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import click
import pytest

from dimint.cli_role import PACKAGES
from tests.test_docs import read_command

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
PROGRAM = "/opt/dimint/bin/dimint"
HARDENED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}


def role_of(unit: Path) -> str:
    return unit.stem.removeprefix("dimint-").rstrip("@")


def test_every_process_has_a_unit() -> None:
    """And every unit is in the documentation."""
    assert {role_of(unit) for unit in UNITS} == set(PACKAGES)
    text = (ROOT / "docs" / "operations.md").read_text()
    for unit in UNITS:
        assert f"`{unit.stem}" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_of_ours(unit: Path) -> None:
    """With flags that it has, in the foreground, as a user of its own, shut in, and started again for ever."""
    parser = ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read_string(unit.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]
    service = dict(parser["Service"])
    program, *words = service["ExecStart"].split()
    assert program == PROGRAM
    command, rest = read_command(words)
    assert words[:2] == [role_of(unit), "run"]
    context = click.Context(command)
    command.parse_args(context, [word.replace("%i", "1") for word in rest])
    assert context.params["config_path"] == "/etc/dimint/dimint.toml"
    assert {name: service.get(name) for name in HARDENED} == HARDENED
    assert (service["User"], service["Restart"], service["StateDirectory"]) == ("dimint", "always", "dimint")
    sees_devices = role_of(unit) == "agent"  # it has to find GPUs, and other users' processes on them
    assert ("PrivateDevices" not in service, "ProtectProc" not in service) == (sees_devices, sees_devices)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copies = []
    for unit in UNITS:
        copy = tmp_path / unit.name
        copy.write_text(re.sub(re.escape(PROGRAM), "/bin/true", unit.read_text()))  # it must be there to be accepted
        copies.append(str(copy))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *copies], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
