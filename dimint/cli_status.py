"""`dimint status`: what an overlord knows of log, overlords, nodes and partitions."""

from typing import Any

import click

from dimint.cli_client import connected, connection, write_json, write_row

__all__ = ["status"]


@click.command(name="status", help="Show the log, the overlords, the nodes and every partition with its replicas.")
@connection
def status(json: bool, **where: Any) -> None:
    """See the help text."""
    with connected(**where) as client:
        found = client.status()
    if json:
        write_json(found)
    else:
        for line in _lines(found):
            write_row(line)


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
