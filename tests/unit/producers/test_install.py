"""The agent as a service: a unit that systemd accepts, that is hardened, and that still sees GPUs and processes."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dimint.errors import SettingsError
from dimint.load import load
from dimint.producers.install import install, plan
from dimint.producers.unit import UNIT_NAME, unit_text
from dimint.settings import AgentSettings

OWN = pwd.getpwuid(os.getuid()).pw_name
OTHER = next(user.pw_name for user in pwd.getpwall() if user.pw_uid not in (0, os.getuid()))


def planned(*flags: str, user: str = "dimint", **given: Any) -> tuple[str, list[str]]:
    """Unit and remarks for settings."""
    return plan(load(AgentSettings, flags=given, environ={}), flags, user=user)


def keys_of(text: str) -> dict[str, list[str]]:
    """Key → its values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_is_hardened_and_sees_gpus() -> None:
    """What would hide GPUs or processes is not in it; what keeps the rest of the machine safe is."""
    keys = keys_of(planned("--to=tcp://hub:5556", to="tcp://hub:5556")[0])
    assert not {
        "PrivateDevices",
        "PrivateUsers",
        "ProtectProc",
        "ProcSubset",
        "ProtectKernelLogs",
        "MemoryDenyWriteExecute",
    } & set(keys)
    assert (keys["NoNewPrivileges"], keys["ProtectSystem"]) == (["yes"], ["strict"])
    assert keys["DeviceAllow"][0] == "char-nvidia* rw"
    assert "/dev/char/195:255 rw" in keys["DeviceAllow"]
    assert "/dev/char/195:0 rw" in keys["DeviceAllow"]
    assert (keys["Restart"], keys["StartLimitIntervalSec"], keys["StateDirectory"]) == (["always"], ["0"], ["dimint"])
    assert keys["ExecStart"] == [f"{sys.executable} -m dimint agent run --to=tcp://hub:5556"]
    assert keys["User"] == ["dimint"]
    assert keys["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
    assert keys["SystemCallErrorNumber"] == ["EPERM"]


def test_systemd_finds_it_hardened(tmp_path: Path) -> None:
    """By `systemd-analyze security`; of 0 to 10, what is left is what the agent is there to see."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    path = tmp_path / UNIT_NAME
    path.write_text(planned("--to=tcp://hub:5556", to="tcp://hub:5556")[0])
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(path)]
    judged = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges no files")
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("flags", [(), ("--tags=rack=1,lab=a b", "--host_name=50 % of $HOME", '--x="q\\'), ("--to=tcp://h:1",)])
def test_systemd_accepts_the_unit(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """`systemd-analyze verify` has nothing to say, but for keys that only newer ones know."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    path = tmp_path / UNIT_NAME
    path.write_text(planned(*flags)[0])
    checked = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in checked.stderr.splitlines() if path.name in line and "Unknown key 'Restart" not in line]
    assert (checked.returncode, said) == (0, [])


def test_words_are_quoted() -> None:
    """systemd's own signs in a setting stay what they are."""
    text = unit_text(["/p y", "a%b", "$x", 'q"\\'], user="u", makes_user=True, knows_data_dir=False, writable=["/data dir"])
    assert 'ExecStart="/p y" a%%b $$x "q\\"\\\\"' in text
    assert 'ReadWritePaths="/data dir"' in text


def test_a_user_that_is_there_is_used() -> None:
    """It has the state folder as other units of it have it; one that is not there is made while the service runs."""
    made = keys_of(planned("--to=tcp://h:1", to="tcp://h:1", user="nobody-has-this")[0])
    assert (made["DynamicUser"], made["User"], made["StateDirectory"]) == (["yes"], ["nobody-has-this"], ["dimint"])
    there = keys_of(planned("--to=tcp://h:1", to="tcp://h:1", user=OTHER)[0])
    assert ("DynamicUser" in there, there["StateDirectory"]) == (False, ["dimint"])


def test_where_the_data_is_is_said_once(tmp_path: Path) -> None:
    """By the unit, unless flags or the config file say it: an environment would win over the file."""
    config = tmp_path / "dimint.toml"
    for text, environment, writable in (
        ("", ["DIMINT_DATA_DIR=/var/lib/dimint"], None),
        ('data_dir = "/var/lib/dimint"', None, None),
        (f'data_dir = "{tmp_path}"', None, [str(tmp_path)]),
    ):
        config.write_text(text)
        keys = keys_of(planned(f"--config_path={config}", config_path=str(config), user=OWN)[0])
        assert (keys.get("Environment"), keys.get("ReadWritePaths")) == (environment, writable)


def test_what_to_know_before_installing(tmp_path: Path) -> None:
    """A log of one's own, secrets and folders that are not there are said in words."""
    assert "a log of this machine alone" in planned()[1][0]
    assert not any("alone" in remark for remark in planned(log="kafka://a:1")[1])
    text, remarks = planned(log="kafka://a:1", kafka_auth="plain:u:p")
    assert any("secrets.env" in remark for remark in remarks)
    assert "plain:u:p" not in text
    with pytest.raises(SettingsError, match="is not there"):
        planned(data_dir=str(tmp_path / "none"))
    assert keys_of(planned(data_dir=str(tmp_path))[0])["ReadWritePaths"] == [str(tmp_path)]


def test_files_that_the_user_cannot_read_are_named(tmp_path: Path) -> None:
    """A key is for one user only: the service would start again and again without it."""
    key = tmp_path / "key"
    with pytest.raises(SettingsError, match=f"{key}: No such file"):
        planned(to="tcp://h:1", key_file=str(key), user=OWN)
    key.touch(mode=0o600)
    planned(to="tcp://h:1", key_file=str(key), user=OWN)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    (shut / "key").touch(mode=0o644)
    with pytest.raises(
        SettingsError, match=f"the user {OTHER} cannot read {shut}/key: .* is closed to it; put the file into /etc"
    ):
        planned(to="tcp://h:1", key_file=str(shut / "key"), user=OTHER)
    planned(to="tcp://h:1", key_file="/etc/passwd", user="nobody-has-this")
    with pytest.raises(SettingsError, match=r"there is no user nobody-has-this yet; useradd --system .*; chown nobody-has-this "):
        planned(to="tcp://h:1", key_file="/etc/shadow", user="nobody-has-this")
    with pytest.raises(SettingsError, match=f"the user {OTHER} cannot read /etc/shadow; chown {OTHER} /etc/shadow"):
        planned(to="tcp://h:1", key_file="/etc/shadow", user=OTHER)


def test_a_program_that_the_user_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its environment, or the Python behind it, may be in a folder of somebody else."""
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(shut / "python3")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python3"))
    assert any("is closed to the user" in remark for remark in planned("--to=tcp://h:1", to="tcp://h:1", user=OTHER)[1])
    assert not any(f"{shut} is closed" in remark for remark in planned("--to=tcp://h:1", to="tcp://h:1", user=OWN)[1])


def test_device_files_that_are_not_for_everybody(tmp_path: Path) -> None:
    """Their groups are the service's too; what only root may open is said."""
    if os.geteuid() != 0:
        pytest.skip("only root makes device files")
    group = grp.getgrall()[-1]
    for name, mode, gid in (
        ("nvidia0", 0o666, 0),
        ("nvidia1", 0o660, group.gr_gid),
        ("nvidiactl", 0o600, 0),
        ("other", 0o600, 0),
    ):
        try:
            os.mknod(tmp_path / name, stat.S_IFCHR | mode, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("this container makes no device files")
        (tmp_path / name).chmod(mode)
        os.chown(tmp_path / name, 0, gid)
    text, remarks = plan(load(AgentSettings, flags={"to": "tcp://h:1"}, environ={}), [], user="dimint", devices=tmp_path)
    assert keys_of(text)["SupplementaryGroups"] == [group.gr_name]
    assert [remark for remark in remarks if "only root" in remark] == [
        f"only root may open {tmp_path}/nvidiactl: give these files a group, or samples will have no GPUs"
    ]


def test_who_may_not_install_is_told(tmp_path: Path) -> None:
    """Without root or without systemd nothing is written."""
    if os.geteuid() == 0 and Path("/run/systemd/system").is_dir():
        pytest.skip("this machine could install it")
    with pytest.raises(SettingsError, match=r"root|systemd"):
        install("[Unit]\n", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_unit(tmp_path: Path) -> None:
    """`dimint-produce --install-service --dry-run` prints the unit to stdout and remarks to stderr."""
    program = "import sys; from dimint.cli import produce_main; sys.exit(produce_main())"
    command = [sys.executable, "-c", program, "--install-service", "--dry-run", "--tags=rack=1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path, env=environment)
    assert ran.stdout.startswith("[Unit]\n")
    assert keys_of(ran.stdout)["ExecStart"][0].endswith("agent run --tags=rack=1")
    assert "alone" in ran.stderr
    (tmp_path / "own").mkdir()
    (tmp_path / "lab.toml").touch()
    command = [*command, "--data_dir=own", "--config-path=lab.toml", f"--user={OWN}"]
    variables = {**environment, "DIMINT_TO": "tcp://h:1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path, env=variables)
    whole = f"--config_path={tmp_path}/lab.toml --data_dir={tmp_path}/own --tags=rack=1"
    assert keys_of(ran.stdout)["ExecStart"][0].endswith(f"agent run {whole}")
    assert "the service does not see DIMINT_TO of this shell" in ran.stderr
    assert "alone" in ran.stderr
    refused = subprocess.run([*command, "--user=a b"], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
