"""History charts as SVG that the server draws: lines, stacked areas, hatched gaps, a lane of events, words and tables. [S]

They need no script, print, and are the same in a ticket next month. A chart library was tried instead: plotly's bundle is
4.8 MB and wants to write style sheets into the page, which the content policy forbids.
"""

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Final, NamedTuple

from dimint.webapp.history import POINTS, History, Series, summary
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.times import clock

__all__ = ["Mark", "charts_node"]

_HEIGHT: Final = 100
_COLOURS: Final = 10
"""Classes c0 … c9 of lines; with more of them colours repeat, and the table tells them apart."""
_MARKS_MAX: Final = 60
_LABELS: Final = 5


class Mark(NamedTuple):
    """Something that happened: symbol, class and words; `gpu` is its index or None."""

    time_ns: int
    symbol: str
    cls: str
    words: str


def charts_node(
    history: History, marks: Sequence[Mark], zone: tzinfo, *, refresh: str | None, alerts: Sequence[Node] = ()
) -> Node:
    """Open alerts, the event lane, and all charts of a host; `refresh` is where a live page asks for them again."""
    opened = [node("figcaption", node("b", "Open alerts")), node("ul", *alerts, cls="changes")] if alerts else []
    parts: list[Child] = []
    if history.util:
        parts += [
            _figure("GPU utilisation", "%", history, history.util, 100, zone, idle=True),
            _figure("GPU memory by user", "GiB", history, _in_gib(history.memory), max(1, history.memory_total_mib // 1024), zone,
                    stacked=True),
            _figure("GPU power", "W", history, history.power, _top(history.power, 100), zone),
            _figure("GPU temperature", "°C", history, history.temperature, _top(history.temperature, 90), zone),
        ]  # fmt: skip
    parts.append(_figure("CPU and memory of the host", "%", history, history.host, 100, zone))
    lane = _lane(history, marks, zone)
    above = node("figure", *opened) if opened else None
    return node("section", above, lane, *parts, id="charts", cls="charts", aria_label="History", data_refresh=refresh)


def _in_gib(series: Iterable[Series]) -> list[Series]:
    return [Series(one.name, tuple(None if value is None else value >> 10 for value in one.values)) for one in series]


def _top(series: Iterable[Series], least: int) -> int:
    highest = max((value for one in series for value in one.values if value is not None), default=0)
    return max(least, -(-highest // 50) * 50)


def _figure(
    title: str, unit: str, history: History, series: Sequence[Series], top: int, zone: tzinfo, *,
    stacked: bool = False, idle: bool = False,
) -> Node:  # fmt: skip
    if stacked:
        drawn = _areas(series, top)
    else:
        drawn = [node("path", cls=f"line c{at % _COLOURS}", d=_line(one.values, top)) for at, one in enumerate(series)]
    words = [users_text(summary(one, unit, history.step_ns, idle=idle)) for one in series]
    plot = node(
        "svg", *_gaps(history), node("path", cls="rule", d=f"M0 {_HEIGHT // 2}H{POINTS}"), *drawn,
        viewBox=f"0 0 {POINTS} {_HEIGHT}", preserveAspectRatio="none", cls="plot", role="img",
        aria_label=f"{title}. {'; '.join(words[:16])}",
    )  # fmt: skip
    keys = [
        node("span", node("span", "", cls=f"key k{at % _COLOURS}", aria_hidden="true"), node("bdi", users_text(one.name)))
        for at, one in enumerate(series)
    ]
    axis = node("div", *(node("span", word) for word in (f"{top} {unit}", f"{top // 2}", "0")), cls="axis", aria_hidden="true")
    return node(
        "figure",
        node("figcaption", node("b", title), " ", node("span", *keys, cls="keys")),
        node("div", axis, plot, cls="plotbox"),
        _times(history, zone),
        node("details", node("summary", "in words"), _table(series, unit, history, idle=idle)),
    )


def _line(values: Sequence[int | None], top: int) -> str:
    """Steps of the path, broken where nothing is known."""
    out: list[str] = []
    pen = "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        y = _HEIGHT - min(max(value, 0), top) * _HEIGHT / top
        out.append(f"{pen}{at} {y:.1f}h1" if pen == "M" else f"L{at + 1} {y:.1f}")
        pen = "L"
    return "".join(out)


def _areas(series: Sequence[Series], top: int) -> list[Node]:
    """Stacked: the first lowest. A step that is not known has no area."""
    below = [0] * POINTS
    found: list[Node] = []
    for number, one in enumerate(series):
        out: list[str] = []
        at = 0
        while at < POINTS:
            value, floor = one.values[at], below[at]
            end = at
            while end < POINTS and one.values[end] == value and below[end] == floor:
                end += 1
            if value:
                low, high = (_HEIGHT - min(part, top) * _HEIGHT / top for part in (floor, floor + value))
                out.append(f"M{at} {low:.1f}V{high:.1f}H{end}V{low:.1f}z")
            at = end
        below = [floor + (value or 0) for floor, value in zip(below, one.values, strict=True)]
        found.append(node("path", cls=f"area c{number % _COLOURS}", d="".join(out)))
    return found


def _gaps(history: History) -> list[Node]:
    """Hatched bands where nothing is known."""
    known = history.known
    found: list[Node] = []
    at = 0
    while at < POINTS:
        end = at
        while end < POINTS and not known[end]:
            end += 1
        if end > at:
            found.append(node("rect", x=str(at), y="0", width=str(end - at), height=str(_HEIGHT), cls="gap"))
        at = max(end, at + 1)
    return found


def _times(history: History, zone: tzinfo) -> Node:
    days = history.to_ns - history.from_ns > 36 * 3600 * 1_000_000_000
    span = history.to_ns - history.from_ns
    words = [clock(history.from_ns + span * at // (_LABELS - 1), zone, day=days) for at in range(_LABELS)]
    return node("div", *(node("span", word) for word in words), cls="times-axis", aria_hidden="true")


def _table(series: Sequence[Series], unit: str, history: History, *, idle: bool) -> Node:
    """The chart as a table: one row a line, the values that its summary says."""
    heads = ["", "lowest", "median", "highest", "last", *(["idle"] if idle else []), "known"]
    rows = []
    for one in series:
        known = sorted(value for value in one.values if value is not None)
        last = next((value for value in reversed(one.values) if value is not None), None)
        picked = [known[0], known[len(known) // 2], known[-1], last] if known else [None] * 4
        cells = [node("td", "–" if value is None else f"{value} {unit}", cls="right") for value in picked]
        if idle:
            minutes = sum(value < 5 for value in known) * history.step_ns // 60_000_000_000
            cells.append(node("td", f"{minutes} min", cls="right"))
        cells.append(node("td", f"{len(known) * 100 // POINTS} %", cls="right"))
        rows.append(node("tr", node("th", node("bdi", users_text(one.name)), scope="row"), *cells))
    head = node("thead", node("tr", *(node("th", word, scope="col", cls="right" if word else None) for word in heads)))
    return node("table", head, node("tbody", *rows), cls="words")


def _lane(history: History, marks: Sequence[Mark], zone: tzinfo) -> Node:
    """What happened, as a lane of symbols over the same time as the charts, and as a list, the newest first."""
    ticks = []
    span = history.to_ns - history.from_ns
    for mark in marks:
        x = (mark.time_ns - history.from_ns) * 1000 // max(1, span)
        ticks.append(node("rect", node("title", users_text(mark.words)), x=str(x), y="0", width="3", height="10", cls=mark.cls))
    lane = node("svg", *ticks, viewBox="0 0 1000 10", preserveAspectRatio="none", cls="lane", role="img",
                aria_label=f"{len(marks)} events")  # fmt: skip
    days = span > 20 * 3600 * 1_000_000_000
    lines = [
        node("li", node("time", clock(mark.time_ns, zone, day=days)), " ", node("span", mark.symbol, cls=f"sign {mark.cls}"), " ",
             node("bdi", users_text(mark.words)))
        for mark in reversed(marks[-_MARKS_MAX:])
    ]  # fmt: skip
    rest = len(marks) - _MARKS_MAX
    more = node("li", f"and {rest} earlier ones", cls="fine") if rest > 0 else None
    empty = node("p", "Nothing happened.", cls="fine") if not marks else None
    listing = node("details", node("summary", f"{len(marks)} events"), node("ol", *lines, more), open="") if marks else None
    caption = node("figcaption", node("b", "What happened"))
    return node("figure", caption, node("div", lane, cls="lanebox"), empty, listing, cls="happened")
