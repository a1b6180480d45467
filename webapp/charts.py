"""History charts as SVG that the server draws: lines, stacked areas, hatched gaps, a lane of events, words and tables. [S]

They need no script and print. Where a script runs it puts charts with a cursor into their place (static/charts.js), of the
same numbers (plots.py).
"""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from dimint.webapp.history import History, Series, summary
from dimint.webapp.marks import Mark
from dimint.webapp.nodes import Node, node, users_text
from dimint.webapp.panels import Panel, panels_of
from dimint.webapp.times import clock

__all__ = ["charts_node"]

_HEIGHT: Final = 100
_COLOURS: Final = 10
"""Classes c0 … c9 of lines; with more of them colours repeat, and the table tells them apart."""
_MARKS_MAX: Final = 60
_LABELS: Final = 5
_QUIET_MAX: Final = 20
_PLAIN: Final = "plain"
_BANDS_MAX: Final = 2
"""With more lines than this their bands from least to most would hide each other."""


_HATCH: Final = node(
    "svg",
    node("defs", node("pattern", node("rect", width="3", height="10"), node("path", d="M0 10L3 0"), id="unknown", width="3",
                      height="10", patternUnits="userSpaceOnUse")),
    cls="hatch", width="0", height="0", aria_hidden="true",
)  # fmt: skip
"""What all pictures fill their gaps with; it is as wide as three steps."""


def charts_node(
    history: History,
    marks: Sequence[Mark],
    zone: tzinfo,
    *,
    refresh: str | None,
    alerts: Sequence[Node] = (),
    spans: Node | None = None,
    data: str | None = None,
    drawn: bool = False,
    log: str | None = None,
) -> Node:
    """Open alerts, the choice of the range, the event lane, and all charts of a host.

    `refresh` is where a live page asks for them again, `data` where its script gets the numbers, and with `drawn` it has
    drawn the charts itself and needs no pictures. `log` leads to all events of the host.
    """
    opened = [node("figcaption", node("b", "Open alerts")), node("ul", *alerts, cls="changes")] if alerts else []
    parts = [_figure(panel, history, marks, zone, drawn=drawn) for panel in panels_of(history)]
    above = node("figure", *opened) if opened else None
    lane = _lane(history, marks, zone, log)
    return node("section", _HATCH, above, spans, lane, *parts, id="charts", cls="charts", aria_label="History",
                data_refresh=refresh, data_plots=data)  # fmt: skip


def _figure(panel: Panel, history: History, marks: Sequence[Mark], zone: tzinfo, *, drawn: bool) -> Node:
    series, top, unit = panel.series, panel.top, panel.unit
    words = [users_text(summary(one, unit, history.step_ns, idle=panel.idle, below=history.idle_percent)) for one in series]
    label = f"{panel.title}. {'; '.join(words[:16])}"
    keys = [
        node("span", node("span", "", cls=f"key k{at % _COLOURS}", aria_hidden="true"), node("bdi", users_text(one.name)))
        for at, one in enumerate(series)
    ]
    axis = node("div", *(node("span", word) for word in (f"{top}", f"{top // 2}", "0")), cls="axis", aria_hidden="true")
    picture = [] if drawn else [axis, _picture(panel, history, marks, label)]
    return node(
        "figure",
        node("figcaption", node("b", panel.title), node("span", unit, cls="fine"), node("span", *keys, cls="keys")),
        node("div", *picture, cls="plotbox", data_chart=panel.id, data_label=label),
        _times(history, zone),
        node("details", node("summary", "in words"), _table(series, unit, history, idle=panel.idle)),
    )


def _picture(panel: Panel, history: History, marks: Sequence[Mark], label: str) -> Node:
    series, top = panel.series, panel.top
    lines: list[Node] = []
    if panel.stacked:
        lines += _areas(series, top, history.steps)
    else:
        for at, one in enumerate(series):
            if one.low and len(series) <= _BANDS_MAX:
                lines.append(node("path", cls=f"band c{at}", d=_band(one, top)))
            lines.append(node("path", cls=f"line c{at % _COLOURS}", d=_line(one.values, top)))
    span = max(1, history.to_ns - history.from_ns)
    for mark in marks:
        if mark.cls != _PLAIN:
            x = (mark.time_ns - history.from_ns) * history.steps / span
            lines.append(node("path", cls=f"event {mark.cls}", d=f"M{x:.1f} 0V{_HEIGHT}"))
    return node(
        "svg", *_gaps(history), node("path", cls="rule", d=f"M0 {_HEIGHT // 2}H{history.steps}"), *lines,
        viewBox=f"0 0 {history.steps} {_HEIGHT}", preserveAspectRatio="none", cls="plot", role="img", aria_label=label,
    )  # fmt: skip


def _band(series: Series, top: int) -> str:
    """From the least to the most of each step."""
    out: list[str] = []
    for at, (low, high) in enumerate(zip(series.low, series.high, strict=True)):
        if low is not None and high is not None:
            y0, y1 = (_HEIGHT - min(max(value, 0), top) * _HEIGHT / top for value in (low, high))
            out.append(f"M{at} {y0:.1f}V{y1:.1f}h1V{y0:.1f}z")
    return "".join(out)


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


def _areas(series: Sequence[Series], top: int, steps: int) -> list[Node]:
    """Stacked: the first lowest. A step that is not known has no area."""
    below = [0] * steps
    found: list[Node] = []
    for number, one in enumerate(series):
        out: list[str] = []
        at = 0
        while at < steps:
            value, floor = one.values[at], below[at]
            end = at
            while end < steps and one.values[end] == value and below[end] == floor:
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
    size = {"y": "0", "height": str(_HEIGHT), "fill": "url(#unknown)"}
    return [node("rect", x=str(at), width=str(end - at), cls="gap", **size) for at, end in history.gaps]


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
            minutes = sum(value < history.idle_percent for value in known) * history.step_ns // 60_000_000_000
            cells.append(node("td", f"{minutes} min", cls="right"))
        cells.append(node("td", f"{len(known) * 100 // history.steps} %", cls="right"))
        rows.append(node("tr", node("th", node("bdi", users_text(one.name)), scope="row"), *cells))
    head = node("thead", node("tr", *(node("th", word, scope="col", cls="right" if word else None) for word in heads)))
    return node("table", head, node("tbody", *rows), cls="words")


def _lane(history: History, marks: Sequence[Mark], zone: tzinfo, log: str | None) -> Node:
    """What happened, as a lane of symbols over the same time as the charts, and as lists, the newest first.

    Users that come and go, and agents that start, have the lower half of the lane and a list of their own.
    """
    span = max(1, history.to_ns - history.from_ns)
    at: dict[tuple[int, str], list[str]] = {}
    for mark in marks:
        at.setdefault(((mark.time_ns - history.from_ns) * 500 // span * 2, mark.cls), []).append(mark.words)
    ticks = []
    for (x, cls), words in at.items():
        y, height = ("12", "6") if cls == _PLAIN else ("0", "11")
        title = "; ".join(words[:4]) + (f"; and {len(words) - 4} more" if len(words) > 4 else "")
        ticks.append(node("rect", node("title", users_text(title)), x=str(x), y=y, width="3", height=height, cls=cls))
    bands = [
        node("rect", x=str((first - history.from_ns) * 1000 // span), y="0", height="18", cls="late",
             width=str(max(3, (last - first) * 1000 // span)))
        for first, last in history.backfilled
    ]  # fmt: skip
    loud = [mark for mark in marks if mark.cls != _PLAIN]
    quiet = [mark for mark in marks if mark.cls == _PLAIN]
    lane = node("svg", *bands, *ticks, viewBox="0 0 1000 18", preserveAspectRatio="none", cls="lane", role="img",
                aria_label=f"{len(loud)} events, {len(quiet)} users or agents that came or went")  # fmt: skip
    day = history.needs_days
    return node(
        "figure",
        node("figcaption", node("b", "What happened"), node("a", "all of it in the log", href=log, cls="fine") if log else None),
        node("div", lane, cls="lanebox"),
        _times(history, zone),
        node("p", "Nothing happened.", cls="fine") if not marks else None,
        _happened(loud, "events", zone, day=day, opened=True),
        _happened(quiet, "users and agents that came or went", zone, day=day, opened=not loud and len(quiet) <= _QUIET_MAX),
        cls="happened",
    )


def _happened(marks: Sequence[Mark], words: str, zone: tzinfo, *, day: bool, opened: bool) -> Node | None:
    if not marks:
        return None
    lines = [
        node("li", node("time", clock(mark.time_ns, zone, day=day)), " ", node("span", mark.symbol, cls=f"sign {mark.cls}"), " ",
             node("bdi", users_text(mark.words)))
        for mark in reversed(marks[-_MARKS_MAX:])
    ]  # fmt: skip
    rest = len(marks) - _MARKS_MAX
    more = node("li", f"and {rest} earlier ones", cls="fine") if rest > 0 else None
    summary = node("summary", f"{words}: {len(marks)}")
    return node("details", summary, node("ol", *lines, more, tabindex="0"), open="" if opened else None)
