"""A host as a card: all its GPUs with gauges and the last minutes, its processes by user, its facts. [S]"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from dimint.sample import NOTHING_WRONG
from dimint.settings_thresholds import Thresholds
from dimint.webapp.judge import SKEW_MS, about, orphan_mib, slow_reasons
from dimint.webapp.models import Gpu, Host, Process, Sampled, Status
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import (
    SIGNS,
    PageStyle,
    age,
    bar,
    gib,
    gpu_sign,
    host_link,
    mib_as_gib,
    number,
    percent_of,
    state,
    trend,
)  # fmt: skip
from dimint.webapp.text import counted

__all__ = ["card_node"]

PROCESSES_SHOWN: Final = 6
"""Processes of a card that are open; the rest is behind a click."""


def _meter(title: str, percent: int | None, kind: str, text: str, limits: Thresholds) -> Node:
    if percent is not None and percent >= limits.much_percent and kind != "util":
        text = f"▲ {text}"
    return node(
        "div", node("span", title, cls="what"), bar(percent, kind, title, limits), node("span", text, cls="num"), cls="meter"
    )


def _cpu_part(sample: Sampled, limits: Thresholds) -> Node:
    busy = None if sample.cpu_pm is None else (sample.cpu_pm + 5) // 10
    load = "" if sample.load is None else f"load {' '.join(f'{value:.2f}' for value in sample.load)}"
    cores = "" if sample.cores is None else f"{sample.cores} cores"
    up = "" if sample.up_s is None else f"up {about(sample.up_s * 1_000_000_000)}"
    words = " · ".join(part for part in (load, cores, up) if part)
    return node(
        "div",
        _meter("CPU", busy, "cpu", number(busy, "%"), limits),
        _meter("RAM", percent_of(sample.memory_used, sample.memory_total), "ram",
               f"{gib(sample.memory_used)} / {gib(sample.memory_total)} GiB", limits),
        node("p", words, *_clock_part(sample, " · " if words else ""), cls="fine"),
        cls="cpu",
    )  # fmt: skip


def _clock_part(sample: Sampled, before: str) -> list[Child]:
    """The host's clock against the log's, marked if it is wrong."""
    if sample.skew_ms is None:
        return []
    wrong = abs(sample.skew_ms) >= SKEW_MS
    seconds = f"{sample.skew_ms / 1000:+.1f}".replace("-", "−")
    text = f"{'▲ ' if wrong else ''}clock {'0.0' if seconds == '−0.0' else seconds} s"
    title = "The host's clock minus the log's; the way of a sample counts too"
    return [before, node("span", text, cls="warn" if wrong else None, title=title)]


def _gpu_part(gpu: Gpu, history: Sequence[int | None]) -> Node:
    title = f"GPU {gpu.index}"
    head: list[Child] = [
        node("span", str(gpu.index), cls="index"),
        node("bdi", users_text(gpu.name).removeprefix("NVIDIA "), cls="gpuname", title=users_text(gpu.name)),
    ]
    if gpu.state != "ok":
        symbol, cls = gpu_sign(gpu.state)
        head.append(node("span", f"{symbol} {users_text(gpu.state)}", cls=f"badge {cls}"))
        return node("li", node("div", *head, cls="gpuhead"), cls="gpu gone" if cls == "bad" else "gpu")
    if gpu.parent:
        head.append(node("span", users_text(gpu.profile, "MIG"), cls="badge", title="MIG instance"))
    slowed = slow_reasons(gpu)
    if slowed:
        head.append(node("span", f"▲ {', '.join(slowed)}", cls="badge warn"))
    power = number(gpu.power_w, "W") if gpu.power_limit_w is None else f"{number(gpu.power_w, '')}/ {gpu.power_limit_w} W"
    head += [
        node("span", number(gpu.temperature_c, "°C"), cls="fact", title="Temperature"),
        node("span", power, cls="fact", title="Power drawn, and its limit"),
    ]
    if gpu.clock_mhz is not None:
        head.append(node("span", number(gpu.clock_mhz, "MHz"), cls="fact clockrate", title="Clock of the processors"))
    if gpu.split:
        return node("li", node("div", *head, cls="gpuhead"), node("p", "split into MIG instances", cls="fine"), cls="gpu")
    meters = node(
        "div",
        _meter("util", gpu.util_pct, "util", number(gpu.util_pct, "%"), gpu.limits),
        _meter("mem", gpu.memory_pct, "mem", f"{mib_as_gib(gpu.used_mib)} / {mib_as_gib(gpu.total_mib)} GiB", gpu.limits),
        cls="meters",
    )
    line = trend(history, f"{title}, last minutes")
    return node("li", node("div", *head, cls="gpuhead"), node("div", meters, line, cls="gpubody"), cls="gpu")


def _process_row(gpu: Gpu, process: Process, now_ns: int) -> Node:
    orphan = (
        node("span", "orphan", cls="badge warn", title="Holds memory but the process does not exist") if process.orphan else None
    )
    place = node("span", node("bdi", users_text(process.place)), cls="badge where") if process.place else None
    title = users_text(process.command or process.name)
    return node(
        "tr",
        node("td", str(gpu.index), cls="right"),
        node("td", node("bdi", users_text(process.user)), cls="user"),
        node(
            "td",
            node("bdi", users_text(process.name)),
            orphan,
            place,
            cls="program",
            title=title,
        ),
        node("td", number(process.busy_pct, "%") if process.busy_pct is not None else "", cls="right wide"),
        node("td", "" if process.started_ns is None else about(now_ns - process.started_ns), cls="right wide"),
        node("td", users_text(process.pid), cls="right wide"),
        node("td", number(process.used_mib, "MiB"), cls="right"),
    )


def _nobodys_row(gpu: Gpu) -> Node:
    """Memory in use that belongs to no process: what a crashed one left behind, or one that cannot be seen."""
    words = node("span", "▲ memory of no process", cls="warn")
    size = node("td", number(orphan_mib(gpu), "MiB"), cls="right")
    cells = [node("td", str(gpu.index), cls="right"), node("td", "–", cls="user"), node("td", words)]
    return node("tr", *cells, *(node("td", "", cls="wide") for _ in range(3)), size)


def _process_table(rows: Iterable[Node], *, headed: bool) -> Node:
    head = node("thead", node("tr", *(node("th", word, scope="col", cls=cls) for word, cls in (
        ("GPU", "right"), ("user", None), ("program", None), ("busy", "right wide"), ("for", "right wide"), ("pid", "right wide"),
        ("memory", "right")))))  # fmt: skip
    return node("table", head if headed else None, node("tbody", *rows), cls="procs")


def _processes_part(sample: Sampled) -> list[Child]:
    pairs = [(gpu, process) for gpu in sample.gpus for process in gpu.processes]
    held: Counter[str | None] = Counter()
    for _, process in pairs:
        held[process.user] += process.used_mib or 0
    # by user, who holds the most first; then by memory
    pairs.sort(key=lambda pair: (-held[pair[1].user], pair[1].user or "", -(pair[1].used_mib or 0), pair[0].index, pair[1].pid))
    rows = [_nobodys_row(gpu) for gpu in sample.gpus if orphan_mib(gpu)]
    rows += [_process_row(gpu, process, sample.time_ns) for gpu, process in pairs]
    unread = [str(gpu.index) for gpu in sample.gpus if not gpu.processes_known]
    parts: list[Child] = []
    if rows:
        parts.append(_process_table(rows[:PROCESSES_SHOWN], headed=True))
    if len(rows) > PROCESSES_SHOWN:
        more = node("summary", counted(len(rows) - PROCESSES_SHOWN, "more process", "more processes"))
        parts.append(node("details", more, _process_table(rows[PROCESSES_SHOWN:], headed=False)))
    if unread:
        parts.append(node("p", f"▲ processes of GPU {', '.join(unread)} could not be read", cls="fine warn"))
    return parts


def _support_part(sample: Sampled) -> Node | None:
    if sample.gpus:
        return None
    if sample.gpu_support in NOTHING_WRONG:
        words = "no GPU" if sample.gpu_support != "starting" else "the GPU driver has not answered yet"
        return node("p", words, cls="fine")
    return node("p", f"▲ GPUs cannot be read: {users_text(sample.gpu_support).replace('_', ' ')}", cls="fine warn")


def card_node(host: Host, style: PageStyle) -> Node:
    """A host with everything that its newest sample says. Its `id` is `h-<host id>`."""
    sample = host.newest
    head = node(
        "header",
        node("h2", host_link(host, style)),
        state(host.status),
        node("p", node("bdi", users_text(host.ip)), age(host, style), cls="fine sub"),
    )
    body: list[Child] = []
    if host.status is not Status.RUNNING or sample is None:
        body.append(node("p", f"status: {host.status}", cls="fine"))
    else:
        if sample.has_cpu:
            body.append(_cpu_part(sample, style.limits))
        parts = [_gpu_part(gpu, host.trends[at] if at < len(host.trends) else ()) for at, gpu in enumerate(sample.gpus)]
        body.append(node("ul", *parts, cls="gpus") if parts else _support_part(sample))
        body += _processes_part(sample)
        body.append(node("p", users_text(host.facts), cls="fine facts") if host.facts else None)
    return node("article", head, *body, cls=f"card {SIGNS[host.status][2]}", id=f"h-{host.id}")
