"""What stands above the hosts of every page: totals, what is wrong, which GPUs are free, who uses how many, what changed. [S]"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from dimint.webapp.alerts import AlertLine
from dimint.webapp.filter import Filter
from dimint.webapp.judge import Problem, Severity, use_of
from dimint.webapp.models import Host, Snapshot, Status, Use
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import SIGNS, PageStyle, host_link
from dimint.webapp.recent_panel import recent_panel
from dimint.webapp.users import users_panel

__all__ = ["SEVERITY", "head_node"]

SEVERITY: Final = {
    Severity.CRITICAL: ("✖", "critical", "bad"),
    Severity.WARN: ("▲", "warning", "warn"),
    Severity.STALE: ("◌", "stale", "wait"),
}
"""A problem's symbol, word and class."""
_LINES_MAX: Final = 10
_FREE_MAX: Final = 6
_TIB_FROM_MIB: Final = 10 << 20
"""From here on memory is in TiB."""


def head_node(
    hosts: Sequence[Host], style: PageStyle, snapshot: Snapshot, alerts: Sequence[AlertLine], found: Sequence[Problem],
    filter_: Filter,
) -> Node:  # fmt: skip
    """All of it, with the id `head`, for the hosts that the filter leaves: their open alerts, and what else is wrong."""
    users = users_panel(hosts, snapshot.today if len(hosts) == len(snapshot.hosts) else (), style)
    panels = [
        _problems_panel(alerts, found, style),
        _free_panel(hosts, style),
        users,
        recent_panel(snapshot.recent, hosts, filter_, style),
    ]
    totals = _totals(hosts, len(snapshot.hosts))
    return node("section", totals, node("div", *panels, cls="panels"), id="head", aria_label="Overview")


def _totals(hosts: Iterable[Host], known: int) -> Node:
    """The line of totals: states, GPUs and what they do, memory, power."""
    counts = dict.fromkeys(Status, 0)
    uses: Counter[Use] = Counter()
    used = total = busy = measured = power = simulated = shown = 0
    for host in hosts:
        shown += 1
        counts[host.status] += 1
        simulated += host.simulated
        for gpu in host.newest.gpus if host.newest is not None and host.status is Status.RUNNING else ():
            power += gpu.power_w or 0
            if gpu.split:
                continue
            uses[use_of(gpu)] += 1
            used, total = used + (gpu.used_mib or 0), total + (gpu.total_mib or 0)
            if gpu.util_pct is not None:
                busy, measured = busy + gpu.util_pct, measured + 1
    tiles: list[Child] = [_total(f"{shown} of {known}", "hosts match")] if shown != known else []
    for status, count in counts.items():
        symbol, word, cls = SIGNS[status]
        if count or status is Status.RUNNING:
            tiles.append(_total(str(count), f"{symbol} {word}", cls))
    if gpus := uses.total():
        tiles += [
            _total(str(gpus), "GPUs"),
            _total(str(uses[Use.FREE]), "free GPUs"),
            _total(str(uses[Use.IDLE]), "held, idle") if uses[Use.IDLE] else None,
            _total(str(uses[Use.LOST]), "✖ lost GPUs", "bad") if uses[Use.LOST] else None,
            _total(f"{busy // measured} %", "mean utilisation") if measured else None,
            _total(_sizes(used, total), "GPU memory") if total else None,
            _total(f"{power / 1000:.1f} kW" if power < 100_000 else f"{power / 1000:.0f} kW", "GPU power") if power else None,
        ]
    if simulated:
        tiles.append(_total(str(simulated), "simulated", "sim"))
    return node("dl", *tiles, cls="summary")


def _sizes(used_mib: int, total_mib: int) -> str:
    if total_mib < _TIB_FROM_MIB:
        return f"{used_mib / 1024:.0f} / {total_mib / 1024:.0f} GiB"
    return f"{used_mib / 1048576:.1f} / {total_mib / 1048576:.1f} TiB"


def _total(value: str, word: str, cls: str = "") -> Node:
    return node("div", node("dt", word), node("dd", value), cls=cls or None)


def _panel(title: str, count: int, lines: Sequence[Node], rest: int, cls: str, all_at: str) -> Node | None:
    """`all_at` is where all of it is to be seen."""
    if not lines:
        return None
    more = node("li", node("a", f"and {rest} more", href=all_at), cls="fine") if rest > 0 else None
    heading = node("h2", title, " ", node("span", str(count), cls="count"))
    return node("div", heading, node("ul", *lines, more), cls=f"panel {cls}")


def _problems_panel(alerts: Sequence[AlertLine], found: Sequence[Problem], style: PageStyle) -> Node | None:
    """Open alerts first, then what the newest samples say."""
    lines = []
    for alert in alerts[:_LINES_MAX]:
        mark = node("span", alert.symbol, cls=f"sign {alert.cls}", aria_hidden="true")
        name = host_link(alert.host, style, short=True) if alert.host is not None else node("bdi", users_text(alert.name))
        where = f" {users_text(alert.where)}" if alert.where else ""
        level = node("a", users_text(alert.alert.severity), href="/alerts" + style.link)
        lines.append(node("li", mark, " ", level, " ", name, f"{where}: ", node("bdi", users_text(alert.words))))
    for problem in found[: max(0, _LINES_MAX - len(lines))]:
        symbol, word, cls = SEVERITY[problem.severity]
        spot = f" {problem.where}" if problem.gpus else ""
        sign = node("span", symbol, cls=f"sign {cls}", role="img", aria_label=word)
        lines.append(
            node("li", sign, " ", host_link(problem.host, style, short=True), f"{spot}: ", node("bdi", users_text(problem.text)))
        )
    count = len(alerts) + len(found)
    return _panel("Problems", count, lines, count - _LINES_MAX, "problems", "/alerts" + style.link)


def _free_panel(hosts: Iterable[Host], style: PageStyle) -> Node | None:
    """Free GPUs now: the hosts with the most of them first."""
    found: list[tuple[int, str, Host, str]] = []
    for host in hosts:
        gpus = host.newest.gpus if host.newest is not None and host.status is Status.RUNNING else ()
        free = [gpu for gpu in gpus if use_of(gpu) is Use.FREE]
        if free:
            model = users_text(free[0].name, "GPU").removeprefix("NVIDIA ").removeprefix("GeForce ")
            found.append((-len(free), host.name, host, f"{' '.join(str(gpu.index) for gpu in free)} · {model}"))
    found.sort(key=lambda entry: entry[:2])
    lines = [
        node("li", node("b", str(-count)), " on ", host_link(host, style, short=True), ": ", node("bdi", words, cls="fine"))
        for count, _, host, words in found[:_FREE_MAX]
    ]
    return _panel(
        "Free GPUs then" if style.link else "Free GPUs now",
        -sum(entry[0] for entry in found),
        lines,
        len(found) - _FREE_MAX,
        "freenow",
        "/?filter=gpu.free&sort=-gpu.free" + style.link.replace("?", "&"),
    )
