"""`dimint agent once`, `doctor` and `install_service`: what does not run the agent itself."""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dimint.cli_options import given_flags, setting_flags, settings_from, with_settings
from dimint.errors import SettingsError
from dimint.load import ENVIRONMENT_PREFIX
from dimint.setting_kinds import shown
from dimint.settings import AgentSettings

__all__ = ["doctor", "install_service", "once"]


@click.command(name="once", help="Print one sample of this host as JSON; nothing is published.")
@with_settings(AgentSettings)
def once(settings: AgentSettings) -> None:
    from dimint.producers.cli import once as take

    _print(take(settings))


@click.command(name="doctor", help="Check what this host's samples need: driver, rights, spool, log.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_settings(AgentSettings)
def doctor(settings: AgentSettings, as_json: bool) -> int:
    from dimint.producers.doctor import examine

    findings = examine(settings)
    if as_json:
        _print([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:5} {finding.subject}: {finding.text}")
    return int(any(finding.verdict == "FAIL" for finding in findings))


@click.command(name="install-service", help="Install the agent as a systemd service with these settings; needs root.")
@click.option("--dry_run", "--dry-run", "dry_run", is_flag=True, help="Only print the unit.")
@click.option(
    "--user", default="dimint", metavar="NAME", help="User that it runs as; one that does not exist is made for it. [dimint]"
)
@setting_flags("agent")
def install_service(dry_run: bool, user: str, **parameters: Any) -> None:
    from dimint.producers.install import ENVIRONMENT_FILE, install, plan

    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", user):
        raise SettingsError(f"user: {shown(user)} is not a user name")
    here = sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX))
    settings = settings_from(AgentSettings, parameters, {name: os.environ[name] for name in set(os.environ) - set(here)})
    whole = _from_anywhere(settings, parameters)
    config_path = Path(whole["config_path"]) if "config_path" in whole else None
    text, remarks = plan(settings, given_flags("agent", whole), user=user, config_path=config_path)
    if here:
        remarks.append(
            f"the service does not see {', '.join(here)} of this shell: give flags, or put lines into {ENVIRONMENT_FILE}"
        )
    for remark in remarks:
        click.echo(f"dimint: {remark}", err=True)
    if dry_run:
        click.echo(text, nl=False)
    else:
        click.echo(f"installed and started: {install(text)}")


def _from_anywhere(settings: AgentSettings, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with whole paths: a service has another working directory."""
    whole = {name: value for name, value in parameters.items() if value is not None}
    for name in whole:
        if name == "config_path":
            whole[name] = os.path.abspath(whole[name])
        elif name == "log" or isinstance(getattr(settings, name, None), Path):
            whole[name] = str(getattr(settings, name))
    return whole


def _print(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
