"""`dimint agent once` and `dimint agent doctor`: looks at this host without publishing anything."""

import json
import sys
from typing import Any

import click

from dimint.cli_options import with_settings
from dimint.settings import AgentSettings

__all__ = ["doctor", "once"]


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


def _print(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
