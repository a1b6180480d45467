"""The units of deploy/systemd: read everywhere, and judged by systemd itself where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from dimint.cli_role import PACKAGES
from dimint.producers.unit import ENVIRONMENT_FILE, UNIT_NAME, unit_text
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
HARDENED_AGENT = HARDENED | {
    # the programs of other users' processes, and the kernel's lines about XIDs
    "CapabilityBoundingSet": "CAP_SYS_PTRACE CAP_SYSLOG",
    "ProtectHome": "read-only",
    "SystemCallFilter": "@system-service ~@privileged @resources",
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
    text = unit.read_text()
    assert re.findall(r"^\[.*", text, re.MULTILINE) == ["[Unit]", "[Service]", "[Install]"]
    service: dict[str, str] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        service[name] = f"{service[name]} {value}" if name in service else value
    program, *words = service["ExecStart"].split()
    assert program == PROGRAM
    command, rest = read_command(words)
    assert words[:2] == [role_of(unit), "run"]
    context = click.Context(command)
    command.parse_args(context, [word.replace("%i", "1") for word in rest])
    assert context.params["config_path"] == "/etc/dimint/dimint.toml"
    hardened = HARDENED_AGENT if role_of(unit) == "agent" else HARDENED
    assert {name: service.get(name) for name in hardened} == hardened
    assert service["EnvironmentFile"] == f"-{ENVIRONMENT_FILE}"
    assert (service["User"], service["Restart"], service["StateDirectory"]) == ("dimint", "always", "dimint")
    sees_devices = role_of(unit) == "agent"  # it has to find GPUs, and other users' processes on them
    assert ("PrivateDevices" not in service, "ProtectProc" not in service) == (sees_devices, sees_devices)


def test_the_agents_unit_is_what_the_agent_makes() -> None:
    """For an installation that all programs of a machine share; if they differ, write the text of `made` into the file."""
    command = [PROGRAM, "agent", "run", "--config_path=/etc/dimint/dimint.toml"]
    made = unit_text(command, user="dimint", makes_user=False, knows_data_dir=True)
    assert (ROOT / "deploy" / "systemd" / UNIT_NAME).read_text() == made


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, but for keys that only newer ones know."""
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
    said = [line for line in done.stderr.splitlines() if "Unknown key 'Restart" not in line]
    assert (done.returncode, done.stdout, said) == (0, "", [])
