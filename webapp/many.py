"""Many hosts on one page: a heat grid a host for a hundred, tiles of groups for a thousand. [S]"""

import hashlib
from typing import Final
from urllib.parse import quote

from dimint.webapp.groups import Group, Load, load_of
from dimint.webapp.heat import Kind, kind_of_cell, kind_of_gpu, squares
from dimint.webapp.judge import holder, use_of
from dimint.webapp.models import Host, Status, Use
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import SIGNS, PageStyle, age, host_link, number, sign

__all__ = ["grid_node", "group_id", "group_node", "holders_line"]

_TILE_PX: Final = 10
_ROW_PX: Final = 7


def holders_line(host: Host) -> str:
    """Who holds how many of its GPUs, and how many are free: `alice 4 · bob 2 · 2 free`."""
    counts: dict[str, int] = {}
    free = 0
    for gpu in host.newest.gpus if host.newest is not None else ():
        name = holder(gpu)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
        free += use_of(gpu) is Use.FREE
    parts = [f"{users_text(name)} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return " · ".join([*parts[:3], *(["…"] if len(parts) > 3 else []), *([f"{free} free"] if free else [])])


def grid_node(host: Host, style: PageStyle) -> Node:
    """A host as its name, who holds it, and a line a GPU with a square a minute. Its `id` is `h-<host id>`."""
    sample = host.newest if host.status is Status.RUNNING else None
    head: list[Child] = [sign(host.status), " ", node("h2", host_link(host, style))]
    if sample is None:
        body: Child = node("p", SIGNS[host.status][1], " ", age(host, style), cls="fine")
    elif not sample.gpus:
        busy = None if sample.cpu_pm is None else (sample.cpu_pm + 5) // 10
        body = node("p", f"no GPU · CPU {number(busy, '%')}", cls="fine")
    else:
        head.append(node("bdi", holders_line(host), cls="fine users"))
        words = f"{len(sample.gpus)} GPUs: {_words(load_of((host,)))}"
        if host.hour:
            rows = [[kind_of_cell(cell) for cell in cells] for cells in host.hour]
            body = squares(rows, f"last hour of {words}", row_px=_ROW_PX)
        else:  # only this moment is known: a square a GPU
            body = squares([[kind_of_gpu(gpu) or "gap" for gpu in sample.gpus]], words, row_px=_TILE_PX, column_px=_TILE_PX)
    return node("article", node("header", *head), body, cls=f"strip {SIGNS[host.status][2]}", id=f"h-{host.id}")


def group_id(name: str) -> str:
    """The `id` of a group's tile, whatever characters its name has."""
    return f"g-{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:16]}"


def _words(load: Load) -> str:
    parts = [f"{load.gpus} GPU"]
    parts += [f"{load.count(use)} {word}" for use, word in (
        (Use.BUSY, "busy"), (Use.IDLE, "held idle"), (Use.FREE, "free"), (Use.LOST, "✖ lost"), (Use.UNKNOWN, "? unknown"),
    ) if load.count(use)]  # fmt: skip
    if load.down:
        parts.append(f"✖ {load.down} of {load.hosts} hosts not running")
    return " · ".join(parts)


def group_node(group: Group, query: str) -> Node:
    """A group as its counts, percentiles, and a square a GPU, a column a host; its name leads to just these hosts.

    `query` is what the link carries on, from its `&` on.
    """
    load = load_of(group.hosts)
    columns: list[list[Kind]] = []
    for host in group.hosts:
        running = host.newest if host.status is Status.RUNNING else None
        if running is None:
            columns.append(["lost" if host.status is Status.DOWN else "gap"])
        else:
            columns.append([kind_of_gpu(gpu) or "gap" for gpu in running.gpus])
    height = max(map(len, columns), default=0)
    rows = [[column[at] if at < len(column) else None for column in columns] for at in range(height)]
    link = f"/?filter={quote(group.filter, safe='', errors='backslashreplace')}{query}"
    spread = " · ".join(
        f"{word} {value}" for word, value in (("p5", load.p5), ("p50", load.p50), ("p95", load.p95)) if value is not None
    )
    return node(
        "article",
        node("h2", node("a", node("bdi", users_text(group.name)), href=link)),
        node("p", f"{load.hosts} hosts · {_words(load)}", cls="fine"),
        squares(rows, f"{users_text(group.name)}: {_words(load)}", row_px=_TILE_PX, column_px=_TILE_PX) if height else None,
        node("p", f"busy %: {spread}", cls="fine") if spread else None,
        cls="group bad" if load.count(Use.LOST) or load.down else "group",
        id=group_id(group.name),
    )  # fmt: skip
