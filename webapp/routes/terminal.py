"""Answers for terminals: the old views, the views for many hosts, frames that follow, lines for programs."""

import asyncio
from dataclasses import dataclass
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse, raw, text

from dimint.webapp.alerts import what_is_wrong
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_lines import LINE_VIEWS, Frame, Line, data_line, line_view, tsv
from dimint.webapp.as_terminal import TerminalView
from dimint.webapp.asked import Asked, layout_for, selected
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.site import Moment, Site
from dimint.webapp.terminal_options import TerminalOptions, read_terminal_options
from dimint.webapp.view import paged

__all__ = ["terminal_answer"]

_PLAIN: Final = "text/plain; charset=utf-8"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a terminal asked for; `only` is the id of the one host that is shown, None for all."""

    asked: Asked
    view: TerminalView
    auto: bool
    options: TerminalOptions
    only: str | None


async def terminal_answer(request: Request, site: Site, view: TerminalView, *, only: str | None = None) -> HTTPResponse | None:
    """The view asked for, of the hosts asked for. Raises BadQuery for what cannot be read.

    Without `view` and `group` it is the old view, whatever the number of hosts; `view=auto` lets their number decide.
    """
    options = read_terminal_options(request.args.get, site.page_style.limits)
    auto = request.args.get("view") == "auto"
    asked = site.asked(request)
    wanted = _Asked(asked, view, auto, options, only)
    if options.watch_s:
        return await _watch(request, site, wanted)
    old = not auto and asked.layout not in LINE_VIEWS and asked.group is None
    snapshot, asked, moment = await site.snapshot(asked, bare=old or options.form == "tsv")
    hosts = _hosts(site, snapshot, wanted, moment)
    if options.form == "tsv":
        return raw(tsv(hosts), content_type="text/tab-separated-values; charset=utf-8")
    if options.form == "json":
        lines = _lines(site, snapshot, hosts, wanted, moment)
        body = {"lines": [{"host": line.host, "text": options.finished(line.text)} for line in lines], "at": asked.at or asked.to}
        return raw(dump(body), content_type="application/json")
    return text(options.finished(_text(site, snapshot, hosts, wanted, moment)))


async def _watch(request: Request, site: Site, wanted: _Asked) -> HTTPResponse | None:
    """Frame after frame over the one before, until whoever watches goes or the server stops."""
    if not site.enter():
        return raw(dump(error_body(503, "too many live pages")), status=503, content_type="application/json")
    try:
        response = await request.respond(content_type=_PLAIN)
        assert response is not None
        await response.send("\x1b[2J")
        while not site.feed.stopped:
            snapshot, _, moment = await site.snapshot(wanted.asked)
            frame = _text(site, snapshot, _hosts(site, snapshot, wanted, moment), wanted, moment)
            frame = wanted.options.finished(frame).replace("\n", f"{_CLEAR_LINE}\n")
            await response.send(f"{_HOME}{frame}{_CLEAR_BELOW}".encode("utf-8", "backslashreplace"))
            until = site.clock.monotonic() + wanted.options.watch_s
            while not site.feed.stopped and site.clock.monotonic() < until:
                await asyncio.sleep(min(0.25, wanted.options.watch_s))
    finally:
        site.leave()
    return None


def _now_ns(site: Site, moment: Moment | None) -> int:
    return site.clock.time_ns() if moment is None else moment.at_ns


def _hosts(site: Site, snapshot: Snapshot, wanted: _Asked, moment: Moment | None) -> list[Host]:
    if wanted.only is not None:
        return [host for host in snapshot.hosts if host.id == wanted.only]
    matching = selected(snapshot.hosts, wanted.asked, _now_ns(site, moment))
    return list(paged(matching, wanted.asked.page, site.hosts_per_page))


def _line_view(wanted: _Asked, hosts: list[Host]) -> str | None:
    """Which of the views for many hosts it is; None for an old one."""
    asked = wanted.asked
    if wanted.only is not None:
        return None
    layout = layout_for(len(hosts)) if wanted.auto else asked.layout
    if layout is None and asked.group is not None:
        return "tiles"
    return layout if layout in LINE_VIEWS else None


def _lines(site: Site, snapshot: Snapshot, hosts: list[Host], wanted: _Asked, moment: Moment | None) -> list[Line]:
    view = _line_view(wanted, hosts)
    style, now_ns = wanted.options.style(site.terminal_style), _now_ns(site, moment)
    if view is not None:
        data = data_line(snapshot.data_ns, now_ns, hosts, style)
        columns = style.columns if wanted.options.columns is not None else style.width
        wrong = what_is_wrong(snapshot, hosts, now_ns)
        return line_view(view, Frame(hosts, now_ns, columns, data, wanted.asked.group, wanted.options.top, *wrong))
    lines = [Line(None, line) for line in wanted.view.head(style).splitlines()]
    for host in hosts[: wanted.options.top or None]:
        lines += [Line(host.name, line) for line in wanted.view.block(host, style).splitlines()]
    return lines


def _text(site: Site, snapshot: Snapshot, hosts: list[Host], wanted: _Asked, moment: Moment | None) -> str:
    if _line_view(wanted, hosts) is None and not wanted.options.watch_s:
        return site.terminal(wanted.view, hosts[: wanted.options.top or None], wanted.options.style(site.terminal_style), moment)
    return "".join(f"{line.text}\n" for line in _lines(site, snapshot, hosts, wanted, moment))
