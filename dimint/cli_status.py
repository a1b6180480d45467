"""`dimint status`: what an overlord knows of log, overlords, nodes and partitions."""

import json
from typing import Any

import click

from dimint.client import Client

__all__ = ["status"]


@click.command(name="status", help="Show the log, the overlords, the nodes and every partition with its replicas.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Host of an overlord.")
@click.option(
    "--port_for_client",
    "--port-for-client",
    type=click.IntRange(1, 65535),
    default=5556,
    show_default=True,
    envvar="DIMINT_PORT_FOR_CLIENT",
    help="Its port for clients.",
)
@click.option("--timeout", type=click.FloatRange(0.1, 30.0), default=5.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(host: str, port_for_client: int, timeout: float, as_json: bool) -> None:
    """See the help text."""
    where = f"[{host}]" if ":" in host else host
    with Client(f"{where}:{port_for_client}", timeout=timeout) as client:
        found = client.status()
    click.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"log         {found.get('log')}",
        f"generation  {found.get('generation')}",
        f"durability  {found.get('durability')}",
        f"overlords   {len(found.get('overlords', []))}",
        *(f"            {_name(overlord)}" for overlord in found.get("overlords", [])),
        f"nodes       {len(found.get('nodes', []))}",
        *(f"            {_name(node)}" for node in found.get("nodes", [])),
    ]
    partitions = found.get("partitions", [])
    lines.append(f"partitions  {len(partitions)}")
    for partition in partitions:
        lines.append(f"  {partition.get('partition'):>4}  end {partition.get('end')}  master {partition.get('master') or '-'}")
        for node, replica in sorted((partition.get("replicas") or {}).items()):
            state = replica.get("problem") or ("caught up" if replica.get("caught_up") else "catching up")
            lines.append(f"        {node}  lag {replica.get('lag')}  keys {replica.get('keys')}  {state}")
    return lines


def _name(member: Any) -> str:
    """An overlord or node as the reply has it: its id, or a map with one."""
    if isinstance(member, dict):
        return str(member.get("overlord_id") or member.get("node_id") or member.get("id") or member)
    return str(member)
