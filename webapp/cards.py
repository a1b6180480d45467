"""What a browser shows of one host, and of all together: cards, rows and totals as trees of nodes. [S]

Colour never stands alone: every state has a symbol and a word, every bar its number. Few hosts show as cards with all
their GPUs and processes, many as rows with a small bar a GPU. Every part that changes carries an `id`: the feed sends the
new tree of such a part and the browser's script puts it in place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from dimint.webapp.models import Gpu, Host, Process, Sampled, Status
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.text import display_name
from dimint.webapp.times import DateOrder, stamp

__all__ = ["CARDS_MAX", "PageStyle", "gpu_rows_node", "host_node", "summary_node", "trend"]

CARDS_MAX: Final = 24
"""Most hosts that show as cards; more of them show as rows."""

PROCESSES_SHOWN: Final = 6
"""Processes of a card that are open; the rest is behind a click."""

_GIB = 1 << 30
_SIGNS: Final = {
    Status.RUNNING: ("●", "running", "ok"),
    Status.WAITING: ("◌", "waiting", "wait"),
    Status.DOWN: ("✖", "down", "bad"),
}
_WARN_PCT = 90


@dataclass(frozen=True, slots=True)
class PageStyle:
    """What is the same for every page of one server."""

    zone: tzinfo
    title: str = "DiMint"
    description: str = ""
    date_order: DateOrder = DateOrder.YMD


# --- small parts -----------------------------------------------------------------------------------------------------
def _bar(percent: int | None, kind: str, label: str) -> Node:
    """A horizontal bar; unknown is hatched, never empty."""
    if percent is None:
        return node("svg", cls="bar unknown", role="img", aria_label=f"{label}: not available")
    level = " warn" if percent >= _WARN_PCT and kind != "util" else ""
    size = f"{min(max(percent, 0), 100)}%"
    return node(
        "svg", node("rect", width=size, height="100%"), cls=f"bar {kind}{level}", role="img", aria_label=f"{label}: {percent} %"
    )


def _number(value: int | float | None, unit: str) -> str:
    return f"– {unit}" if value is None else f"{value} {unit}"


def _gib(value: int | None) -> str:
    return "–" if value is None else _short(value / _GIB)


def _mib_as_gib(value: int | None) -> str:
    return "–" if value is None else _short(value / 1024)


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _percent(part: int | None, whole: int | None) -> int | None:
    return None if part is None or not whole else part * 100 // whole


def _state(status: Status) -> Node:
    sign, word, _ = _SIGNS[status]
    return node("span", node("span", sign, cls="sign", aria_hidden="true"), f" {word}", cls="state")


def _name(host: Host) -> list[Child]:
    name, mark = display_name(host.name, simulated=host.simulated)
    badge = (
        node("span", "simulated", cls="badge sim", title="This host is a simulation: no such machine exists") if mark else None
    )
    return [node("bdi", name), badge]


def _age(host: Host, style: PageStyle) -> Node:
    sample = host.newest
    when = stamp(sample.time_ns if sample else None, style.zone, style.date_order)
    heard = None if host.heard_ns is None else str(host.heard_ns // 1_000_000)
    return node("span", node("span", when, cls="when"), node("span", "", cls="ago", data_heard=heard), cls="age")


def trend(values: Sequence[int | None], label: str) -> Node | None:
    """The last minutes of a percentage as a line; a gap where nothing is known. None if there is too little to draw."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    steps: list[str] = []
    pen = "M"
    for index, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        steps.append(f"{pen}{index * 100 / (len(values) - 1):.1f} {23 - min(max(value, 0), 100) * 0.22:.1f}")
        pen = "L"
    text = f"{label}: median {sorted(known)[len(known) // 2]} %, highest {max(known)} %"
    return node("svg", node("path", d="".join(steps)), cls="trend", viewBox="0 0 100 24", preserveAspectRatio="none",
                role="img", aria_label=text)  # fmt: skip


# --- cards -----------------------------------------------------------------------------------------------------------
def _meter(title: str, percent: int | None, kind: str, text: str) -> Node:
    if percent is not None and percent >= _WARN_PCT and kind != "util":
        text = f"▲ {text}"
    return node("div", node("span", title, cls="what"), _bar(percent, kind, title), node("span", text, cls="num"), cls="meter")


def _cpu_part(sample: Sampled) -> Node:
    busy = None if sample.cpu_pm is None else (sample.cpu_pm + 5) // 10
    load = "" if sample.load is None else f"load {' '.join(f'{value:.2f}' for value in sample.load)}"
    cores = "" if sample.cores is None else f"{sample.cores} cores"
    return node(
        "div",
        _meter("CPU", busy, "cpu", _number(busy, "%")),
        _meter("RAM", _percent(sample.memory_used, sample.memory_total), "ram",
               f"{_gib(sample.memory_used)} / {_gib(sample.memory_total)} GiB"),
        node("p", " · ".join(part for part in (load, cores) if part), cls="fine"),
        cls="cpu",
    )  # fmt: skip


def _gpu_part(gpu: Gpu, history: Sequence[int | None]) -> Node:
    title = f"GPU {gpu.index}"
    head: list[Child] = [node("span", str(gpu.index), cls="index"), node("bdi", users_text(gpu.name), cls="gpuname")]
    if gpu.state != "ok":
        head.append(node("span", f"✖ {users_text(gpu.state)}", cls="badge bad"))
        return node("li", node("div", *head, cls="gpuhead"), cls="gpu gone")
    power = _number(gpu.power_w, "W") if gpu.power_limit_w is None else f"{_number(gpu.power_w, '')}/ {gpu.power_limit_w} W"
    head += [
        node("span", _number(gpu.temperature_c, "°C"), cls="fact", title="Temperature"),
        node("span", power, cls="fact", title="Power drawn, and its limit"),
    ]
    meters = node(
        "div",
        _meter("util", gpu.util_pct, "util", _number(gpu.util_pct, "%")),
        _meter("mem", gpu.memory_pct, "mem", f"{_mib_as_gib(gpu.used_mib)} / {_mib_as_gib(gpu.total_mib)} GiB"),
        cls="meters",
    )
    line = trend(history, f"{title}, last minutes")
    return node("li", node("div", *head, cls="gpuhead"), node("div", meters, line, cls="gpubody"), cls="gpu")


def _process_row(gpu: Gpu, process: Process) -> Node:
    orphan = (
        node("span", "orphan", cls="badge warn", title="Holds memory but the process does not exist") if process.orphan else None
    )
    return node(
        "tr",
        node("td", str(gpu.index), cls="right"),
        node("td", node("bdi", users_text(process.user)), cls="user"),
        node("td", node("bdi", users_text(process.name)), orphan, cls="program", title=users_text(process.name)),
        node("td", users_text(process.pid), cls="right pid"),
        node("td", _number(process.used_mib, "MiB"), cls="right"),
    )


def _process_table(rows: Iterable[Node], *, headed: bool) -> Node:
    head = node("thead", node("tr", *(node("th", word, scope="col", cls=cls) for word, cls in (
        ("GPU", "right"), ("user", None), ("program", None), ("pid", "right pid"), ("memory", "right")))))  # fmt: skip
    return node("table", head if headed else None, node("tbody", *rows), cls="procs")


def _processes_part(sample: Sampled) -> list[Child]:
    pairs = [(gpu, process) for gpu in sample.gpus for process in gpu.processes]
    pairs.sort(key=lambda pair: (-(pair[1].used_mib or 0), pair[0].index, pair[1].pid))
    rows = [_process_row(gpu, process) for gpu, process in pairs]
    unread = [str(gpu.index) for gpu in sample.gpus if not gpu.processes_known]
    parts: list[Child] = []
    if rows:
        parts.append(_process_table(rows[:PROCESSES_SHOWN], headed=True))
    if len(rows) > PROCESSES_SHOWN:
        more = node("summary", f"{len(rows) - PROCESSES_SHOWN} more processes")
        parts.append(node("details", more, _process_table(rows[PROCESSES_SHOWN:], headed=False)))
    if unread:
        parts.append(node("p", f"▲ processes of GPU {', '.join(unread)} could not be read", cls="fine warn"))
    return parts


def _support_part(sample: Sampled) -> Node | None:
    if sample.gpus:
        return None
    if sample.gpu_support in ("ok", "no_gpu", "no_library"):
        return node("p", "no GPU", cls="fine")
    return node("p", f"▲ GPUs cannot be read: {users_text(sample.gpu_support).replace('_', ' ')}", cls="fine warn")


def _card(host: Host, style: PageStyle) -> Node:
    sample = host.newest
    head = node(
        "header",
        node("h2", *_name(host)),
        _state(host.status),
        node("p", node("bdi", users_text(host.ip)), _age(host, style), cls="fine sub"),
    )
    body: list[Child] = []
    if host.status is not Status.RUNNING or sample is None:
        body.append(node("p", f"status: {host.status}", cls="fine"))
    else:
        if sample.has_cpu:
            body.append(_cpu_part(sample))
        parts = [_gpu_part(gpu, host.trends[at] if at < len(host.trends) else ()) for at, gpu in enumerate(sample.gpus)]
        body.append(node("ul", *parts, cls="gpus") if parts else _support_part(sample))
        body += _processes_part(sample)
        body.append(node("p", users_text(host.facts), cls="fine facts") if host.facts else None)
    return node("article", head, *body, cls=f"card {_SIGNS[host.status][2]}", id=f"h-{host.id}", data_find=_find_text(host))


# --- rows ------------------------------------------------------------------------------------------------------------
def _tile(gpu: Gpu) -> Node:
    """One GPU in a row: how busy as the height of the left bar, how full as the height of the right one."""
    if gpu.state != "ok":
        return node("span", "✖", cls="tile gone", role="img", aria_label=f"GPU {gpu.index}: {users_text(gpu.state)}")
    util, memory = gpu.util_pct, gpu.memory_pct
    bars = []
    for at, value, kind in ((0, util, "util"), (9, memory, "mem")):
        height = 20 if value is None else max(1, min(max(value, 0), 100) // 5)
        bars.append(
            node("rect", cls="unknown" if value is None else kind, x=str(at), y=str(20 - height), width="8", height=str(height))
        )
    label = f"GPU {gpu.index}: {_number(util, '%')} busy, memory {_number(memory, '%')}"
    return node("svg", *bars, cls="tile", viewBox="0 0 17 20", role="img", aria_label=label)


def _cpu_line(sample: Sampled) -> str:
    """CPU and memory of a host in a few words."""
    busy = None if sample.cpu_pm is None else (sample.cpu_pm + 5) // 10
    return f"CPU {_number(busy, '%')} · RAM {_number(_percent(sample.memory_used, sample.memory_total), '%')}"


def _row(host: Host, style: PageStyle) -> Node:
    sample = host.newest if host.status is Status.RUNNING else None
    gpus = sample.gpus if sample else ()
    free = sum(1 for gpu in gpus if not gpu.processes and gpu.processes_known and gpu.state == "ok")
    users = sorted({process.user for gpu in gpus for process in gpu.processes if process.user})
    return node(
        "article",
        node("h2", *_name(host)),
        _state(host.status),
        node("div", *(_tile(gpu) for gpu in gpus), cls="tiles"),
        node("span", f"{free} of {len(gpus)} free" if gpus else "no GPU" if sample else "", cls="fine"),
        node("span", _cpu_line(sample) if sample else "", cls="fine"),
        node("bdi", users_text(", ".join(users), ""), cls="fine users"),
        _age(host, style),
        cls=f"row {_SIGNS[host.status][2]}", id=f"h-{host.id}", data_find=_find_text(host),
    )  # fmt: skip


def _find_text(host: Host) -> str:
    """What the filter box looks through: names, users, programs, state."""
    words = [host.name, host.ip, str(host.status), "simulated" if host.simulated else ""]
    if host.newest is not None and host.status is Status.RUNNING:
        for gpu in host.newest.gpus:
            words += [gpu.name or "", *(part for process in gpu.processes for part in (process.user or "", process.name or ""))]
    return users_text(" ".join(dict.fromkeys(words)).casefold()[:1000], "")


def host_node(host: Host, style: PageStyle, *, rows: bool) -> Node:
    """A host as a card, or as a row where there are many. Its `id` is `h-<host id>`."""
    return _row(host, style) if rows else _card(host, style)


# --- the GPU table ---------------------------------------------------------------------------------------------------
def gpu_rows_node(host: Host, style: PageStyle) -> Node:
    """A host's lines of `/gpu_table`, one a GPU, as one table body with the `id` of the host."""
    sample = host.newest if host.status is Status.RUNNING else None
    gpus: Sequence[Gpu | None] = sample.gpus if sample is not None and sample.gpus else (None,)
    rows: list[Node] = []
    for gpu in gpus:
        first: Child = None
        if not rows:
            cpu = node("span", _cpu_line(sample), cls="fine cpuline") if sample is not None else None
            first = node("th", node("span", *_name(host)), _state(host.status), cpu, scope="rowgroup", rowspan=str(len(gpus)))
        rows.append(node("tr", first, *_gpu_table_cells(gpu, host, style)))
    return node("tbody", *rows, cls=_SIGNS[host.status][2], id=f"h-{host.id}", data_find=_find_text(host))


def _gpu_table_cells(gpu: Gpu | None, host: Host, style: PageStyle) -> list[Node]:
    if gpu is None or gpu.state != "ok":
        word = ("no GPU" if host.status is Status.RUNNING else "") if gpu is None else f"{gpu.index}: {users_text(gpu.name)}"
        note: Child = node("span", f"✖ {users_text(gpu.state)}", cls="badge bad") if gpu is not None else None
        if gpu is None and host.status is not Status.RUNNING:
            note = _age(host, style)
        return [node("td", node("bdi", word), " ", note, colspan="5", cls="fine")]
    users = sorted({process.user for process in gpu.processes if process.user})
    used = f"{_number(gpu.used_mib, '')}/ {_number(gpu.total_mib, 'MiB')}"
    return [
        node("td", f"{gpu.index}: ", node("bdi", users_text(gpu.name)), cls="gpuname"),
        node("td", _bar(gpu.memory_pct, "mem", "memory"), node("span", used, cls="num")),
        node("td", _bar(gpu.util_pct, "util", "utilisation"), node("span", _number(gpu.util_pct, "%"), cls="num")),
        node("td", _number(gpu.temperature_c, "°C"), cls="right"),
        node("td", node("bdi", users_text(", ".join(users))), cls="users"),
    ]


# --- all hosts together ----------------------------------------------------------------------------------------------
def summary_node(hosts: Iterable[Host]) -> Node:
    """The line of totals over all hosts: states, GPUs, free ones, memory."""
    counts = dict.fromkeys(Status, 0)
    gpus = free = lost = used = total = busy = measured = simulated = 0
    for host in hosts:
        counts[host.status] += 1
        simulated += host.simulated
        for gpu in host.newest.gpus if host.newest is not None and host.status is Status.RUNNING else ():
            gpus += 1
            lost += gpu.state != "ok"
            free += gpu.state == "ok" and gpu.processes_known and not gpu.processes
            used, total = used + (gpu.used_mib or 0), total + (gpu.total_mib or 0)
            if gpu.util_pct is not None:
                busy, measured = busy + gpu.util_pct, measured + 1
    tiles: list[Child] = []
    for status, count in counts.items():
        sign, word, cls = _SIGNS[status]
        if count or status is Status.RUNNING:
            tiles.append(_total(str(count), f"{sign} {word}", cls))
    if gpus:
        tiles += [
            _total(str(gpus), "GPUs"),
            _total(str(free), "free GPUs"),
            _total(str(lost), "✖ lost GPUs", "bad") if lost else None,
        ]
        tiles.append(_total(f"{busy // measured} %", "mean utilisation") if measured else None)
        tiles.append(_total(f"{used / 1024:.0f} / {total / 1024:.0f} GiB", "GPU memory") if total else None)
    if simulated:
        tiles.append(_total(str(simulated), "simulated", "sim"))
    return node("dl", *tiles, id="summary", cls="summary")


def _total(value: str, word: str, cls: str = "") -> Node:
    return node("div", node("dt", word), node("dd", value), cls=cls or None)
