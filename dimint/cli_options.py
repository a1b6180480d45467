"""Flags from the settings table, and the settings that a command gets from them."""

import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from dimint.load import ENVIRONMENT_PREFIX, load
from dimint.settings import CommonSettings, Setting, role_of, settings_of

__all__ = ["flag_names", "given_flags", "given_secrets", "setting_flags", "settings_from", "with_settings"]

Settings = TypeVar("Settings", bound=CommonSettings)
Command = TypeVar("Command", bound=Callable[..., Any])


def setting_flags(role: str) -> Callable[[Command], Command]:
    """Every setting of a role as a flag, with underscores or dashes, and --config_path and --kafka_servers."""

    def add(command: Command) -> Command:
        for row in reversed(settings_of(role)):
            command = _option(row)(command)
        command = click.option(*_spellings("kafka_servers"), metavar="TEXT", help="The same as --log kafka://TEXT.")(command)
        return click.option(*_spellings("config_path"), metavar="FILE", help="Settings in TOML or JSON.")(command)

    return add


def with_settings(cls: type[CommonSettings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the flags of a process, and its settings, loaded, as the first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**parameters: Any) -> Any:
            names = flag_names(role_of(cls))
            others = {name: value for name, value in parameters.items() if name not in names}
            return command(settings_from(cls, parameters), **others)

        return setting_flags(role_of(cls))(call)

    return decorate


def settings_from(cls: type[Settings], parameters: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings of one process from a command's parameters, of which some are flags of it; `environ` None: this process's."""
    names = flag_names(role_of(cls))
    flags = {name: value for name, value in parameters.items() if name in names}
    return load(cls, flags=flags, environ=os.environ if environ is None else environ, notice=_notice)


def flag_names(role: str) -> frozenset[str]:
    """Parameter names of `setting_flags`."""
    return frozenset({row.name for row in settings_of(role)} | {"config_path", "kafka_servers"})


def given_flags(role: str, parameters: Mapping[str, Any]) -> list[str]:
    """The flags of `role` among a command's parameters, as arguments for another command of ours; without secrets."""
    booleans = {row.name for row in settings_of(role) if row.kind == "bool"}
    secrets = {row.name for row in settings_of(role) if row.secret}
    arguments = []
    for name in sorted(flag_names(role) - secrets):
        value = parameters.get(name)
        if name in booleans and value is not None:
            arguments.append(f"--{name}" if value else f"--no_{name}")
        elif value is not None:
            arguments.append(f"--{name}={value}")
    return arguments


def given_secrets(role: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The secrets of `role` among a command's parameters, as environment: unlike arguments, others cannot see them."""
    secrets = [row.name for row in settings_of(role) if row.secret and parameters.get(row.name) is not None]
    return {f"{ENVIRONMENT_PREFIX}{name.upper()}": str(parameters[name]) for name in secrets}


def _option(row: Setting) -> Callable[[Command], Command]:
    if row.kind == "bool":
        pairs = [f"--{row.name}/--no_{row.name}"]
        if "_" in row.name:
            pairs.append(f"--{row.name.replace('_', '-')}/--no-{row.name.replace('_', '-')}")
        return click.option(row.name, *pairs, default=None, help=row.help)
    shown = "" if row.default in (None, "", ()) else f" [{row.default}{' ' + row.unit if row.unit else ''}]"
    metavar = "|".join(row.choices) if row.choices else row.kind.upper()
    old = [f"--{name}" for name in row.old_names if row.roles == {"node"}]  # the original's node had them as flags too
    return click.option(row.name, *_spellings(row.name), *old, metavar=metavar, help=row.help + shown)


def _spellings(name: str) -> list[str]:
    spellings = [f"--{name}"]
    if "_" in name:
        spellings.append(f"--{name.replace('_', '-')}")
    return spellings


def _notice(line: str) -> None:
    print(f"dimint: {line}", file=sys.stderr)
