"""The small parts that all pages are made of: bars, numbers with units, states, names, times, little lines. [S]

Colour never stands alone: every state has a symbol and a word, every bar its number; what is not known is hatched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final
from urllib.parse import quote

from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.judge import GONE
from dimint.webapp.models import Change, Host, Status
from dimint.webapp.nodes import Child, Node, node
from dimint.webapp.text import display_name
from dimint.webapp.times import DateOrder, stamp

__all__ = [
    "SIGNS", "PageStyle", "age", "bar", "change_sign", "gib", "gpu_sign", "host_link", "host_name", "mib_as_gib", "number",
    "percent_of", "sign", "state", "trend",
]  # fmt: skip

_GIB = 1 << 30
_GPU_SIGNS: Final = {**dict.fromkeys(GONE, ("✖", "bad")), "suspended": ("◌", "wait")}
SIGNS: Final = {
    Status.RUNNING: ("●", "running", "ok"),
    Status.WAITING: ("◌", "waiting", "wait"),
    Status.DOWN: ("✖", "down", "bad"),
}
"""A host's status as symbol, word and class."""


@dataclass(frozen=True, slots=True)
class PageStyle:
    """What is the same for every page of one server."""

    zone: tzinfo
    title: str = "DiMint"
    description: str = ""
    date_order: DateOrder = DateOrder.YMD
    limits: Thresholds = THRESHOLDS
    link: str = ""
    """Query that links to other pages carry on: the time that is shown."""


def bar(percent: int | None, kind: str, label: str, limits: Thresholds) -> Node:
    """A horizontal bar; unknown is hatched, never empty."""
    if percent is None:
        return node("svg", cls="bar unknown", role="img", aria_label=f"{label}: not available")
    level = " warn" if percent >= limits.much_percent and kind != "util" else ""
    size = f"{min(max(percent, 0), 100)}%"
    return node(
        "svg", node("rect", width=size, height="100%"), cls=f"bar {kind}{level}", role="img", aria_label=f"{label}: {percent} %"
    )


def number(value: int | float | None, unit: str) -> str:
    """A number with its unit, or a dash in its place."""
    return f"– {unit}" if value is None else f"{value} {unit}"


def gib(value: int | None) -> str:
    """Bytes as GiB."""
    return "–" if value is None else _short(value / _GIB)


def mib_as_gib(value: int | None) -> str:
    """MiB as GiB."""
    return "–" if value is None else _short(value / 1024)


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def percent_of(part: int | None, whole: int | None) -> int | None:
    """Whole percent, rounded down; None unless both are known."""
    return None if part is None or not whole else part * 100 // whole


def sign(status: Status) -> Node:
    """The symbol alone, with its word for who hovers over it or listens."""
    symbol, word, cls = SIGNS[status]
    return node("span", symbol, cls=f"sign {cls}", role="img", aria_label=word, title=word)


def state(status: Status) -> Node:
    """Symbol and word of a status."""
    symbol, word, _ = SIGNS[status]
    return node("span", node("span", symbol, cls="sign", aria_hidden="true"), f" {word}", cls="state")


def change_sign(change: Change) -> Node:
    """The symbol of a change; its words say the same."""
    return node("span", change.symbol, cls=f"sign {change.cls}", aria_hidden="true")


def gpu_sign(state: str) -> tuple[str, str]:
    """Symbol and class of a GPU's state that is not `ok`: gone is bad, asleep is well, and the rest is not known."""
    return _GPU_SIGNS.get(state, ("?", "wait"))


def host_name(host: Host) -> list[Child]:
    """The name as text, and the badge of a simulated host."""
    name, mark = display_name(host.name, simulated=host.simulated)
    badge = (
        node("span", "simulated", cls="badge sim", title="This host is a simulation: no such machine exists") if mark else None
    )
    return [node("bdi", name), badge]


def age(host: Host, style: PageStyle) -> Node:
    """When the newest sample was taken; the page's script adds how long ago it was heard."""
    sample = host.newest
    when = stamp(sample.time_ns if sample else None, style.zone, style.date_order)
    late = (
        node("span", "backfilled", cls="badge wait", title="It came late: nobody saw it at that time")
        if host.backfilled
        else None
    )
    heard = None if host.heard_ns is None else str(host.heard_ns // 1_000_000)
    return node("span", node("span", when, cls="when"), node("span", "", cls="ago", data_heard=heard), late, cls="age")


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


def host_link(host: Host, style: PageStyle, *, short: bool = False) -> Node:
    """The host's name, leading to its page; short, with the mark of a simulated host instead of its badge."""
    place = quote(host.name, safe="", errors="backslashreplace")
    text: list[Child] = [node("bdi", "".join(display_name(host.name, simulated=host.simulated)))] if short else host_name(host)
    return node("a", *text, href=f"/hosts/{place}/{style.link}", cls="hostlink")
