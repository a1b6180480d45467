"""Hosts as rows of tables: one a host with a small bar a GPU, or one a GPU. [S]"""

from collections.abc import Sequence

from dimint.webapp.judge import holder, units, use_of, users_of
from dimint.webapp.models import Gpu, Host, Sampled, Status, Use
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import (
    SIGNS,
    PageStyle,
    age,
    bar,
    gpu_sign,
    host_link,
    mib_as_gib,
    number,
    percent_of,
    sign,
    state,
    trend,
)  # fmt: skip

__all__ = ["ROW_COLUMNS", "gpu_rows_node", "row_node"]

ROW_COLUMNS = (
    ("host", "host", None), ("GPUs", "-gpu.util", None), ("free", "-gpu.free", "right"), ("last hour", None, None),
    ("busy", "-gpu.util", "right"), ("memory", "-gpu.mem", "right"), ("hottest", "-gpu.temp", "right"), ("users", "user", None),
    ("CPU", "-cpu", "right"), ("RAM", "-ram", "right"), ("heard", "age", "right"),
)  # fmt: skip
"""Of the table of hosts: heading, the order that a click on it asks for, class."""


def _tile(gpu: Gpu) -> Node:
    """One GPU in a row: how busy as the height of the left bar, how full as the height of the right one."""
    if gpu.state != "ok":
        symbol, cls = gpu_sign(gpu.state)
        label = f"GPU {gpu.index}: {users_text(gpu.state)}"
        return node("span", symbol, cls="tile gone" if cls == "bad" else "tile away", role="img", aria_label=label, title=label)
    util, memory = gpu.util_pct, gpu.memory_pct
    bars = []
    for at, value, kind in ((0, util, "util"), (9, memory, "mem")):
        height = 20 if value is None else max(1, min(max(value, 0), 100) // 5)
        bars.append(
            node("rect", cls="unknown" if value is None else kind, x=str(at), y=str(20 - height), width="8", height=str(height))
        )
    use = use_of(gpu)
    who = users_text(holder(gpu), "nobody")
    label = f"GPU {gpu.index}: {use}, {number(util, '%')} busy, memory {number(memory, '%')}, {who}"
    return node("svg", node("title", label), *bars, cls=f"tile {use}", viewBox="0 0 17 20", role="img", aria_label=label)


def cpu_line(sample: Sampled) -> str:
    """CPU and memory of a host in a few words."""
    busy = None if sample.cpu_pm is None else (sample.cpu_pm + 5) // 10
    return f"CPU {number(busy, '%')} · RAM {number(percent_of(sample.memory_used, sample.memory_total), '%')}"


def _mean(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) // len(known) if known else None


def _hour(host: Host) -> list[int | None]:
    """Mean utilisation of all GPUs for each minute of the last hour."""
    return [_mean([cell.util for cell in cells]) for cells in zip(*host.hour, strict=True)]


def row_node(host: Host, style: PageStyle) -> Node:
    """A host as one line of a table, and its GPUs one by one behind a click. Its `id` is `h-<host id>`."""
    sample = host.newest if host.status is Status.RUNNING else None
    gpus = sample.gpus if sample else ()
    name = node("th", node("div", sign(host.status), " ", host_link(host, style), cls="rowname"), scope="row")
    cls = f"row {SIGNS[host.status][2]}"
    if sample is None or not gpus:
        words = "no GPU" if sample else SIGNS[host.status][1]
        middle: list[Child] = [node("td", words, colspan=str(len(ROW_COLUMNS) - 4), cls="fine")]
    else:
        whole = units(gpus)
        free = sum(use_of(gpu) is Use.FREE for gpu in whole)
        heats = [gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None]
        used = [gpu.used_mib for gpu in whole if gpu.used_mib is not None]
        total = [gpu.total_mib for gpu in whole if gpu.total_mib is not None]
        middle = [
            node("td", _details(gpus)),
            node("td", f"{free} of {len(whole)}", cls="right free" if free else "right"),
            node("td", trend(_hour(host), "all GPUs, last hour"), cls="spark"),
            node("td", number(_mean([gpu.util_pct for gpu in gpus]), "%"), cls="right"),
            node(
                "td", f"{mib_as_gib(sum(used) if used else None)} / {mib_as_gib(sum(total) if total else None)} GiB", cls="right"
            ),
            node("td", number(max(heats, default=None), "°C"), cls="right"),
            node("td", node("bdi", users_text(", ".join(users_of(gpus)), "")), cls="users"),
        ]
    cpu = None if sample is None or sample.cpu_pm is None else (sample.cpu_pm + 5) // 10
    ram = None if sample is None else percent_of(sample.memory_used, sample.memory_total)
    last: list[Child] = [
        node("td", number(cpu, "%"), cls="right", data_label="CPU"),
        node("td", number(ram, "%"), cls="right", data_label="RAM"),
        node("td", age(host, style), cls="right"),
    ]
    return node("tbody", node("tr", name, *middle, *last), cls=cls, id=f"h-{host.id}")


def _details(gpus: Sequence[Gpu]) -> Node:
    """The tiles; opened, a line for each GPU."""
    lines = []
    for gpu in gpus:
        facts = f"{number(gpu.util_pct, '%')} · {mib_as_gib(gpu.used_mib)}/{mib_as_gib(gpu.total_mib)} GiB · "
        facts += f"{number(gpu.temperature_c, '°C')} · {number(gpu.power_w, 'W')}"
        if gpu.state != "ok":
            facts = f"{gpu_sign(gpu.state)[0]} {users_text(gpu.state)}"
        none = {Use.FREE: "free", Use.SPLIT: "split into MIG instances"}.get(use_of(gpu), "–")
        users = users_text(", ".join(users_of((gpu,))), none)
        lines.append(node("li", node("span", str(gpu.index), cls="index"), f" {facts} ", node("bdi", users)))
    return node("details", node("summary", *(_tile(gpu) for gpu in gpus), cls="tiles"), node("ul", *lines, cls="gpulines"))


def gpu_rows_node(host: Host, style: PageStyle) -> Node:
    """A host's lines of `/gpu_table`, one a GPU, as one table body with the `id` of the host."""
    sample = host.newest if host.status is Status.RUNNING else None
    gpus: Sequence[Gpu | None] = sample.gpus if sample is not None and sample.gpus else (None,)
    rows: list[Node] = []
    for gpu in gpus:
        first: Child = None
        if not rows:
            cpu = node("span", cpu_line(sample), cls="fine cpuline") if sample is not None else None
            first = node(
                "th", node("span", host_link(host, style)), state(host.status), cpu, scope="rowgroup", rowspan=str(len(gpus))
            )
        rows.append(node("tr", first, *_gpu_table_cells(gpu, host, style)))
    return node("tbody", *rows, cls=SIGNS[host.status][2], id=f"h-{host.id}")


def _gpu_table_cells(gpu: Gpu | None, host: Host, style: PageStyle) -> list[Node]:
    if gpu is None or gpu.state != "ok":
        word = ("no GPU" if host.status is Status.RUNNING else "") if gpu is None else f"{gpu.index}: {users_text(gpu.name)}"
        note: Child = None
        if gpu is not None:
            symbol, cls = gpu_sign(gpu.state)
            note = node("span", f"{symbol} {users_text(gpu.state)}", cls=f"badge {cls}")
        elif host.status is not Status.RUNNING:
            note = age(host, style)
        return [node("td", node("bdi", word), " ", note, colspan="5", cls="fine")]
    users = sorted({process.user for process in gpu.processes if process.user})
    used = f"{number(gpu.used_mib, '')}/ {number(gpu.total_mib, 'MiB')}"
    return [
        node("td", f"{gpu.index}: ", node("bdi", users_text(gpu.name)), cls="gpuname"),
        node("td", bar(gpu.memory_pct, "mem", "memory", gpu.limits), node("span", used, cls="num")),
        node("td", bar(gpu.util_pct, "util", "utilisation", gpu.limits), node("span", number(gpu.util_pct, "%"), cls="num")),
        node("td", number(gpu.temperature_c, "°C"), cls="right"),
        node("td", node("bdi", users_text(", ".join(users))), cls="users"),
    ]
