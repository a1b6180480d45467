"""`dimint overlord|node|consumer|web|alerts|agent help|list|start|stop|run`: one group for every kind of process."""

import importlib
import json
import os
import sys
from typing import Any

import click

from dimint.children import ChildSpec, start_in_background
from dimint.cli_agent import doctor, install_service, once
from dimint.cli_alerts import ALERT_COMMANDS
from dimint.cli_options import with_settings
from dimint.errors import SettingsError
from dimint.logs import BACKGROUND, log_path, start_logging
from dimint.process_state import own_address, program_command, programs, stop_program
from dimint.service import Service
from dimint.settings import (
    AgentSettings,
    AlertsSettings,
    CommonSettings,
    ConsumerSettings,
    NodeSettings,
    OverlordSettings,
    WebSettings,
)

__all__ = ["agent", "alerts", "consumer", "make_data_dir", "node", "overlord", "run_role", "web"]

PACKAGES = {
    "overlord": "dimint.overlord.cli",
    "node": "dimint.node.cli",
    "consumer": "dimint.consumers.cli",
    "web": "dimint.webapp.cli",
    "alerts": "dimint.consumers.alerts.cli",
    "agent": "dimint.producers.cli",
}
"""Role → the module whose `run(settings, service)` composes it."""


def make_data_dir(settings: CommonSettings) -> None:
    """The data directory, private to this user. Raises SettingsError if it cannot be written."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        line = f"data_dir: {settings.data_dir}: {error.strerror}"
        raise SettingsError(line, hint="name a directory that can be written") from None
    if not os.access(settings.data_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"data_dir: {settings.data_dir} cannot be written", hint="name another with --data_dir")


def run_role(role: str, settings: CommonSettings, log_name: str) -> int:
    """Run one process of a role in the foreground until it ends; the exit code."""
    make_data_dir(settings)
    start_logging(log_path(settings.data_dir, log_name), sys.stderr)

    def program(service: Service) -> None:
        importlib.import_module(PACKAGES[role]).run(settings, service)

    return Service(role).main(program)


def _group(role: str, cls: type[CommonSettings], doc: str) -> click.Group:
    @click.group(name=role, help=doc, invoke_without_command=True)
    @click.pass_context
    def group(ctx: click.Context) -> None:
        if ctx.invoked_subcommand is None:
            click.echo(_help(ctx, role))

    @group.command(name="help", help="Show this help.")
    @click.pass_context
    def show_help(ctx: click.Context) -> None:
        click.echo(_help(ctx, role))

    group.add_command(_list_command())
    group.add_command(_start_command(role, cls))
    group.add_command(_run_command(role, cls))
    group.add_command(_stop_command())
    return group


def _help(ctx: click.Context, role: str) -> str:
    group = ctx if isinstance(ctx.command, click.Group) else ctx.parent
    assert group is not None
    lines = "".join(f"    dimint {role} {command}\n" for command in ("help", "list", "start", "stop"))
    return f"\n{lines}\n{group.get_help()}"


def _list_command() -> click.Command:
    @click.command(name="list", help="Show every running dimint program of this machine.")
    @click.option("--long", "long_form", is_flag=True, help="Also where its messages go.")
    @click.option("--json", "as_json", is_flag=True, help="As JSON.")
    def list_programs(long_form: bool, as_json: bool) -> None:
        found = programs()
        if as_json:
            click.echo(json.dumps([program._asdict() for program in found]))
            return
        for program in found:
            click.echo(f"{program}, log : {program.log_path!r}" if long_form else str(program))

    return list_programs


def _run_command(role: str, cls: type[CommonSettings]) -> click.Command:
    def run(settings: Any) -> int:
        make_data_dir(settings)
        click.echo(f"ip : {own_address()}")
        return run_role(role, settings, _log_name(role, settings))

    return click.command(name="run", help="Run it here, until Ctrl-C.")(with_settings(cls)(run))


def _start_command(role: str, cls: type[CommonSettings]) -> click.Command:
    def start(settings: Any) -> int:
        if BACKGROUND in os.environ:  # this is the child
            return run_role(role, settings, _log_name(role, settings))
        make_data_dir(settings)
        command = (*program_command(), *sys.argv[1:])
        spec = ChildSpec(role, command, log_path(settings.data_dir, _log_name(role, settings)))
        pid = start_in_background(spec)
        click.echo(f"Hello from parent {os.getpid()} {pid}")
        return 0

    return click.command(name="start", help="Start it in the background; its messages go to a file, see list --long.")(
        with_settings(cls)(start)
    )


def _stop_command() -> click.Command:
    @click.command(name="stop", help="Stop the dimint program with this pid.")
    @click.argument("pid", required=False)
    def stop(pid: str | None) -> None:
        if pid is None:
            raise SettingsError("pid is needed")
        if not pid.isascii() or not pid.isdigit() or len(pid) > 10 or int(pid) == 0:
            raise SettingsError(f"{pid!a} is not a pid")
        stop_program(int(pid))

    return stop


def _log_name(role: str, settings: CommonSettings) -> str:
    """A log file of its own for every process that can run beside others of its role."""
    if isinstance(settings, NodeSettings) and settings.node_name:
        return f"{role}-{settings.node_name}"
    if isinstance(settings, OverlordSettings) and "port_for_client" in settings.given:
        return f"{role}-{settings.port_for_client}"
    if isinstance(settings, WebSettings) and "http_port" in settings.given:
        return f"{role}-{settings.http_port}"
    return role


overlord = _group("overlord", OverlordSettings, "Serve the key-value protocol to clients.")
node = _group("node", NodeSettings, "Keep and serve the keys.")
consumer = _group("consumer", ConsumerSettings, "Keep the status tables of the hosts.")
web = _group("web", WebSettings, "Serve the status pages.")
alerts = _group("alerts", AlertsSettings, "Watch the hosts by rules, and tell people.")
agent = _group("agent", AgentSettings, "Publish this host's CPU and GPU.")
for _command in (once, doctor, install_service):
    agent.add_command(_command)
for _command in ALERT_COMMANDS:
    alerts.add_command(_command)
