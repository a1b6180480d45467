"""`/changes`: what changed between two instants, as a page, for terminals and as JSON."""

from dataclasses import replace
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadQuery
from dimint.webapp.as_changes import Happened, changes_page, changes_text
from dimint.webapp.as_html import Page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.asked import selected
from dimint.webapp.board import Board
from dimint.webapp.changed import changes
from dimint.webapp.happenings import gpu_names, mark_of
from dimint.webapp.models import Change
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.times import iso, stamp

__all__ = ["add_routes"]

_DEFAULT: Final = "-1h"
_HAPPENED_MAX: Final = 200


def add_routes(app: App, site: Site) -> None:
    async def changed(request: Request) -> HTTPResponse:
        wants_json = request.args.get("format") == "json"
        try:
            asked = site.asked(request)
            asked = replace(asked, at="", from_=asked.from_ or _DEFAULT, to=asked.to or asked.at or "now")
            moment = site.moment(asked)
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        assert moment is not None
        at_ns, from_ns = moment
        assert from_ns is not None

        def read(board: Board) -> tuple[list[Change], list[Happened], frozenset[str]]:
            before, after = board.past(from_ns, traced=False, whole=True), board.past(at_ns, traced=False, whole=True)
            # a host counts if the filter holds for it at either end
            ids = {
                host.id for snapshot, now in ((before, from_ns), (after, at_ns)) for host in selected(snapshot.hosts, asked, now)
            }
            old = [host for host in before.hosts if host.id in ids]
            new = [host for host in after.hosts if host.id in ids]
            names = {host.id: host for host in (*old, *new)}
            events = [event for event in board.events(from_ns, at_ns) if event.host in names][-_HAPPENED_MAX:]
            marks = [(names[event.host].name, event.kind, mark_of(event, gpu_names(names[event.host]))) for event in events]
            return changes(old, new), marks, frozenset(host.name for host in names.values() if host.simulated)

        found, marks, simulated = await site.feed.read(read)
        asked = site.fixed(asked, moment)
        if wants_json:
            body = {
                "from": iso(from_ns), "to": iso(at_ns),
                "changes": [{"kind": one.kind, "host": one.host, "text": one.words} for one in found],
                "events": [
                    {"time": iso(mark.time_ns), "host": host, "kind": kind, "text": mark.words} for host, kind, mark in marks
                ],
            }  # fmt: skip
            return raw(dump(body), content_type="application/json")
        zone, order = site.page_style.zone, site.page_style.date_order
        ends = stamp(from_ns, zone, order), stamp(at_ns, zone, order)
        if is_true(request, "term"):
            return text(changes_text(found, marks, ends, site.terminal_style, simulated))
        page = Page("/changes", asked, 1, "", None, at_ns // 1_000_000, True)
        return html(changes_page(page, site.page_style, found, marks, ends, simulated))

    app.add_route(changed, "/changes", methods=("GET", "HEAD"), name="changes")
