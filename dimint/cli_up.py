"""`dimint up`: see dimint/up.py."""

import sys
from typing import Any

import click

from dimint import up as program
from dimint.cli_options import given_flags, given_secrets, setting_flags, settings_from
from dimint.cli_role import make_data_dir
from dimint.logs import log_path, start_logging
from dimint.process_state import program_command
from dimint.service import Service
from dimint.settings import UpSettings

__all__ = ["up"]


@click.command(name="up", help="Run overlord, nodes, consumer, pages, alerts and agent on this machine until Ctrl-C.")
@setting_flags("up")
def up(**parameters: Any) -> int:
    """See the help text."""
    settings = settings_from(UpSettings, parameters)
    everywhere = {**parameters, "data_dir": str(settings.data_dir)}
    specs = program.children(
        settings,
        program_command(),
        lambda role: given_flags(role, everywhere),
        lambda role: given_secrets(role, everywhere),
    )
    make_data_dir(settings)
    start_logging(log_path(settings.data_dir, "up"), sys.stderr)
    return Service("up", stop_s=program.STOP_S).main(lambda service: program.run(settings, specs, service))
