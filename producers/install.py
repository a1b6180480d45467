"""Installs the agent as a systemd service, or says what it would install."""

import grp
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimint.errors import SettingsError
from dimint.producers.reach import closed_folder, exists, may_read
from dimint.producers.state import write_whole
from dimint.producers.unit import ENVIRONMENT_FILE, STATE_FOLDER, UNIT_NAME, unit_text
from dimint.settings import AgentSettings

__all__ = ["ENVIRONMENT_FILE", "install", "plan"]

UNITS = Path("/etc/systemd/system")
_FOLDERS = {"data_dir", "archive_dir"}


def plan(
    settings: AgentSettings,
    flags: Sequence[str],
    *,
    user: str,
    config_path: Path | None = None,
    devices: Path = Path("/dev"),
) -> tuple[str, list[str]]:
    """The unit's text, and remarks for whoever installs it. `flags` are what was given, without secrets.

    Where the driver's device files are not for everybody the service gets their groups. Raises SettingsError for what the
    service could not work with.
    """
    values = [config_path, *(getattr(settings, name) for name in sorted(settings.given) if name not in _FOLDERS)]
    _check_readable([value for value in values if isinstance(value, Path)], user)
    remarks = []
    own = "data_dir" in settings.given
    writable = [str(settings.data_dir)] if own and str(settings.data_dir) != STATE_FOLDER else []
    if not settings.to and "://" not in settings.log:
        if "log" in settings.given:
            writable.append(settings.log)
        remarks.append("samples go to a log of this machine alone; --to tcp://OVERLORD:5556 or --log kafka://… sends them on")
    for folder in writable:
        if not Path(folder).is_dir():
            raise SettingsError(f"{folder} is not there", hint=f"make it, and give it to the user {user}")
    if any(name.endswith("_auth") for name in settings.given):
        remarks.append(f"secrets do not belong into a unit: put DIMINT_…=… lines into {ENVIRONMENT_FILE}, readable by root only")
    program = Path(sys.executable)
    # the environment, the Python that it was made with, and this program
    for shut in sorted({closed_folder(user, part) for part in (program.parent, program, Path(__file__))} - {None}, key=str):
        remarks.append(f"{shut} is closed to the user {user}, and the program or its Python is in it: install it into "
                       "/opt/dimint, with a Python that everybody may run")  # fmt: skip
    command = [str(program), "-m", "dimint", "agent", "run", *flags]
    groups, closed = _groups_of(sorted(devices.glob("nvidia*")))
    if closed:
        remarks.append(f"only root may open {', '.join(closed)}: give these files a group, or samples will have no GPUs")
    text = unit_text(command, user=user, makes_user=not exists(user), knows_data_dir=own, writable=writable, groups=groups)
    return text, remarks


def _check_readable(files: Iterable[Path], user: str) -> None:
    """Raises SettingsError for a file that the service's user cannot read, as a key that only root may."""
    for file in files:
        try:
            closed, readable = closed_folder(user, file), may_read(user, file)
        except OSError as error:
            raise SettingsError(f"{file}: {error.strerror}") from None
        if closed is not None:
            raise SettingsError(
                f"the user {user} cannot read {file}: {closed} is closed to it", hint="put the file into /etc/dimint"
            )
        if readable:
            continue
        if not exists(user):
            make = f"useradd --system --home-dir {STATE_FOLDER} --shell /usr/sbin/nologin {user}"
            raise SettingsError(
                f"not everybody may read {file}, and there is no user {user} yet", hint=f"{make}; chown {user} {file}"
            )
        raise SettingsError(f"the user {user} cannot read {file}", hint=f"chown {user} {file}")


def _groups_of(devices: Iterable[Path]) -> tuple[list[str], list[str]]:
    """The groups that open those of these device files that are not for everybody, and those that no group opens."""
    groups, closed = set(), []
    for path in devices:
        try:
            found = path.stat()
        except OSError:
            continue  # it went away
        if not path.is_char_device() or found.st_mode & 0o006 == 0o006:
            continue
        if found.st_gid and found.st_mode & 0o060 == 0o060:
            groups.add(_group_name(found.st_gid))
        else:
            closed.append(str(path))
    return sorted(groups), closed


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def install(text: str, folder: Path = UNITS) -> Path:
    """Write the unit, have systemd read it, and start it now and at every boot; the file.

    Raises SettingsError where this user or this machine cannot do it.
    """
    if os.geteuid() != 0:
        raise SettingsError("only root installs services", hint="use sudo, or --dry_run to see the unit")
    if not Path("/run/systemd/system").is_dir():
        raise SettingsError("this machine does not run systemd", hint="--dry_run prints the unit")
    path = folder / UNIT_NAME
    try:
        write_whole(path, text.encode())
        path.chmod(0o644)
        for command in (["daemon-reload"], ["enable", UNIT_NAME], ["restart", UNIT_NAME]):
            subprocess.run(["systemctl", *command], check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        raise SettingsError(f"systemctl {error.cmd[1]}: {' '.join(error.stderr.split())[:300]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{path}: {error}") from None
    return path
