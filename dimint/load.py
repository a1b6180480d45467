"""From files, environment and flags to settings objects: the only reader of the config file and of `DIMINT_*`.

Later ones win: the defaults of the table, the config file (TOML, or the JSON of the original), `DIMINT_<NAME>` in the
environment (an empty variable counts as not set), flags. A file may serve all processes of a machine: names that
another process has are fine. Names that nobody has are errors which name the nearest one.
"""

import json
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from dimint.errors import SettingsError
from dimint.setting_kinds import shown
from dimint.settings import (
    IGNORED_NAMES,
    SETTINGS,
    CommonSettings,
    build,
    canonical_name,
    nearest_name,
    parse,
    role_of,
    settings_of,
)

__all__ = ["CONFIG_MAX_BYTES", "ENVIRONMENT_PREFIX", "load", "read_config"]

CONFIG_MAX_BYTES: Final = 1 << 20
ENVIRONMENT_PREFIX: Final = "DIMINT_"

Settings = TypeVar("Settings", bound=CommonSettings)


class _Raw(NamedTuple):
    """A value as somebody wrote it, and where."""

    value: object
    origin: str


def load(
    cls: type[Settings],
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    notice: Callable[[str], None] = lambda line: None,
) -> Settings:
    """The settings of one process. `flags` has what was given on the command line, `config_path` among it.

    Raises SettingsError with one line for every error. `notice` gets a line about what was ignored.
    """
    errors: list[str] = []
    raw: dict[str, _Raw] = {}
    path = flags.get("config_path")
    if path is None:
        path = environ.get(ENVIRONMENT_PREFIX + "CONFIG_PATH") or None
    if path is not None:
        raw.update(_from_config(str(path), read_config(str(path)), errors, notice))
    raw.update(_from_environment(environ, errors))
    raw.update(_from_flags(flags, errors))
    values: dict[str, Any] = {}
    for row in settings_of(role_of(cls)):
        values[row.name] = row.default
        if row.name in raw:
            try:
                values[row.name] = parse(row.name, raw[row.name].value)
            except SettingsError as error:
                errors.append(f"{error} ({raw[row.name].origin})")
    if errors:
        raise SettingsError("\n".join(errors))
    _resolve_paths(values, environ)
    return build(cls, values, [name for name in raw if name in values])


# --- the three sources ----------------------------------------------------------------------------------------------
def _from_config(path: str, entries: Mapping[str, object], errors: list[str], notice: Callable[[str], None]) -> dict[str, _Raw]:
    found: dict[str, _Raw] = {}
    ignored = []
    for name, value in entries.items():
        plain = name.replace("-", "_").lower()
        if plain == "kafka_servers":
            _add(found, "log", _Raw(_kafka(value), path), errors)
        elif (known := canonical_name(name)) is not None:
            _add(found, known, _Raw(value, path), errors)
        elif plain in IGNORED_NAMES:
            ignored.append(name)
        else:
            errors.append(_unknown(name, path))
    if ignored:
        notice(f"{path}: {', '.join(sorted(ignored))} of an older system: not needed any more, ignored")
    secrets = [row.name for row in SETTINGS if row.secret and found.get(row.name, _Raw("", "")).value]
    if secrets and os.stat(path).st_mode & stat.S_IROTH:
        errors.append(f"{path}: has {secrets[0]} and can be read by everybody; chmod o-r {path}")
    return found


def _from_environment(environ: Mapping[str, str], errors: list[str]) -> dict[str, _Raw]:
    found: dict[str, _Raw] = {}
    for variable, value in environ.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.startswith(ENVIRONMENT_PREFIX) or name == "config_path" or not value:
            continue
        if name == "kafka_servers":
            _add(found, "log", _Raw(_kafka(value), variable), errors)
        elif canonical_name(name) == name:
            _add(found, name, _Raw(value, variable), errors)
        else:
            near = nearest_name(name)
            question = f"; did you mean {ENVIRONMENT_PREFIX}{near.upper()}?" if near else ""
            errors.append(f"{shown(variable)}: no such setting{question}")
    return found


def _from_flags(flags: Mapping[str, object], errors: list[str]) -> dict[str, _Raw]:
    found: dict[str, _Raw] = {}
    for name, value in flags.items():
        if value is None or name == "config_path":
            continue
        if name == "kafka_servers":
            _add(found, "log", _Raw(_kafka(value), "--kafka_servers"), errors)
        else:
            _add(found, name, _Raw(value, f"--{name}"), errors)
    return found


def _add(found: dict[str, _Raw], name: str, raw: _Raw, errors: list[str]) -> None:
    if name in found:
        errors.append(f"{name}: is given twice ({raw.origin})")
    found[name] = raw


def _kafka(value: object) -> object:
    return f"kafka://{value}" if isinstance(value, str) else value


def _unknown(name: str, path: str) -> str:
    near = nearest_name(name)
    return f"{shown(name)}: no such setting ({path})" + (f"; did you mean {near}?" if near else "")


# --- the config file ------------------------------------------------------------------------------------------------
def read_config(path: str) -> dict[str, object]:
    """The entries of a config file: JSON if its first character is `{`, else TOML. Raises SettingsError, one line."""
    text = _read_text(path)
    try:
        if text.lstrip().startswith("{"):
            entries: object = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
        else:
            entries = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise SettingsError(f"config file {path}: {line or 'nested too deeply'}") from None
    if not isinstance(entries, dict):
        raise SettingsError(f"config file {path}: is not a map of settings")
    return entries


def _read_text(path: str) -> str:
    if not path or not path.isprintable():
        raise SettingsError(f"config file {shown(path)}: not a usable path")
    try:
        fd = os.open(Path(path).expanduser(), os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SettingsError(f"config file {path}: is not a regular file")
            with os.fdopen(os.dup(fd), "rb") as file:
                content = file.read(CONFIG_MAX_BYTES + 1)
        finally:
            os.close(fd)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise SettingsError(f"config file {shown(path)}: {reason}") from None
    if len(content) > CONFIG_MAX_BYTES:
        raise SettingsError(f"config file {path}: is larger than {CONFIG_MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SettingsError(f"config file {path}: is not UTF-8 (byte {error.start})") from None


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
    return entries


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


# --- paths ----------------------------------------------------------------------------------------------------------
def _resolve_paths(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Make paths absolute (relative to the working directory), and fill in where data is if nobody said."""
    if values["data_dir"] is None:
        base = environ.get("XDG_DATA_HOME") or "~/.local/share"
        values["data_dir"] = Path(base) / "dimint"
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = _absolute(name, value)
    if values["log"] is None:
        values["log"] = str(values["data_dir"])
    elif "://" not in values["log"]:
        values["log"] = str(_absolute("log", Path(values["log"])))


def _absolute(name: str, path: Path) -> Path:
    try:
        return Path(os.path.abspath(path.expanduser()))
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"{name}: {path}: {error}") from None
