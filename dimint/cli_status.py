"""`dimint status`: the health of everything, from registry, log and overlords."""

import logging
import os
from typing import Any

import click

from dimint.cli_client import addresses_of, spelled, write_json
from dimint.cli_options import setting_flags, settings_from
from dimint.client.network import DEFAULT_PORT
from dimint.curve import read_key
from dimint.settings import ToolSettings
from dimint.status.as_text import lines
from dimint.status.look import look
from dimint.status.report import report
from dimint.system_clock import SystemClock
from dimint.visible import visible

__all__ = ["status"]

_WHERE = ("data_dir", "log", "kafka_servers", "zookeeper_hosts", "config_path")


@click.command(
    name="status",
    help="Show log, brokers, overlords, nodes, partitions and consumers; exit code 1 if anything of it is not healthy."
    " With --host and nothing that says where log and registry are, only overlords are asked.",
)
@spelled("host", default=None, help="An overlord's address; several with commas. Default: those of the registry.")
@spelled(
    "port_for_client",
    type=click.IntRange(1, 65535),
    default=None,
    envvar="DIMINT_PORT_FOR_CLIENT",
    help="The overlords' port for clients, where --host names none [5556].",
)
@spelled("timeout", type=click.FloatRange(0, min_open=True), default=3.0, help="Seconds to wait for overlords [3].")
@spelled("every_partition", is_flag=True, help="A row for each partition, however many there are.")
@spelled("json", is_flag=True, help="Print JSON, for programs.")
@setting_flags("tool")
def status(host: str | None, port_for_client: int | None, timeout: float, every_partition: bool, json: bool, **where: Any) -> int:
    """See the help text."""
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries say of who does not answer stands in the report
    if host is None and port_for_client is not None:
        host = "127.0.0.1"
    named = any(where.get(name) is not None or os.environ.get(f"DIMINT_{name.upper()}") for name in _WHERE)
    own = settings_from(ToolSettings, where)
    settings = own if named or host is None else None
    addresses = addresses_of(host, port_for_client or DEFAULT_PORT) if host is not None else []
    found = report(look(settings, addresses, timeout, SystemClock(), read_key(own.key_file)))
    if json:
        write_json(found)
    else:
        for line in lines(found, every_partition=every_partition):
            click.echo(visible(line))
    return 0 if found["healthy"] else 1
