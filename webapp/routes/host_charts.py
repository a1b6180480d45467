"""What stands under the cards of one host: its charts of any range, what happened on it, and who was on its GPUs."""

from typing import NamedTuple
from urllib.parse import quote, urlencode

from dimint.webapp.alerts import alert_lines
from dimint.webapp.as_alerts import alerts_list
from dimint.webapp.as_processes import processes_section
from dimint.webapp.asked import Asked
from dimint.webapp.charts import charts_node
from dimint.webapp.happenings import gpu_names, marks_of
from dimint.webapp.host_past import read_history, read_processes
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.nodes import Node, to_html
from dimint.webapp.plots import plots
from dimint.webapp.ranges import DEFAULT_SPAN, Range, range_nav, read_span
from dimint.webapp.site import Moment, Site
from dimint.webapp.times import iso

__all__ = ["Wanted", "below", "charts", "host_path"]


class Wanted(NamedTuple):
    """The host that is looked at, as it was then, and what was asked for; `span` is the length of a range that ends then."""

    host: Host
    snapshot: Snapshot
    asked: Asked
    moment: Moment | None
    span: str = ""


def host_path(host: Host) -> str:
    return f"/hosts/{quote(host.name, safe='', errors='backslashreplace')}/"


async def below(site: Site, wanted: Wanted) -> str:
    """All of it as HTML."""
    host, times = wanted.host, _range(wanted, site.clock.time_ns())
    tree, _ = await charts(site, wanted, drawn=False)
    was_here = await site.feed.aside(lambda tables: read_processes(tables, host, times.from_ns, times.to_ns))
    who = processes_section(was_here, gpu_names(host), times.from_ns, times.to_ns, site.page_style.zone)
    return to_html(tree) + (to_html(who) if who is not None else "")


async def charts(site: Site, wanted: Wanted, *, drawn: bool) -> tuple[Node, dict[str, object]]:
    """The charts as a tree, and as numbers; `drawn` = without pictures."""
    host, times, zone = wanted.host, _range(wanted, site.clock.time_ns()), site.page_style.zone
    history = await site.feed.aside(lambda tables: read_history(tables, host, times.from_ns, times.to_ns))
    events = await site.feed.read(lambda board: board.events(times.from_ns, times.to_ns, host.id))
    marks = marks_of(host, events, history, zone)
    opened = alerts_list(alert_lines(wanted.snapshot.alerts, [host]), site.page_style)
    words = {"last": wanted.span, "at": wanted.asked.at, "from": wanted.asked.from_, "to": wanted.asked.to}
    address = f"/hosts/{host.id}/charts?" + urlencode({name: word for name, word in words.items() if word})
    spans = range_nav(host_path(host), times, site.clock.time_ns())
    refresh = address if times.live else None
    log = "/log?" + urlencode({"filter": f"id=={host.id}", "from": iso(times.from_ns), "to": iso(times.to_ns)})
    tree = charts_node(
        history, marks, zone, refresh=refresh, alerts=opened, spans=spans, data=address, drawn=drawn, log=log
    )  # fmt: skip
    return tree, plots(history, marks, zone)


def _range(wanted: Wanted, now_ns: int) -> Range:
    """The range asked for; with one end of it only, or none, as long as `last=` says."""
    span_ns = read_span(wanted.span or DEFAULT_SPAN)
    if wanted.moment is None:
        return Range(now_ns - span_ns, now_ns, live=True)
    at_ns, from_ns = wanted.moment
    return Range(max(0, at_ns - span_ns) if from_ns is None else from_ns, at_ns, live=False)
