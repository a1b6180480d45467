"""`/users`: who holds GPUs now, and GPU-hours of a range, of the day if none is asked for."""

from dataclasses import replace

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.consumers.accounting import Accounting, question
from dimint.errors import BadQuery
from dimint.webapp.as_html import Page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_users import users_json, users_page, users_text_table
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.terminal_options import read_terminal_options
from dimint.webapp.today import day_start
from dimint.webapp.users import held_now

__all__ = ["add_routes"]


def add_routes(app: App, site: Site) -> None:
    async def users(request: Request) -> HTTPResponse:
        wants_json = request.args.get("format") == "json"
        try:
            for_terminal = is_true(request, "term") and not wants_json
            options = read_terminal_options(request.args.get) if for_terminal else None
            asked = site.asked(request)
            moment = site.moment(asked)
            snapshot, asked, _ = await site.snapshot(asked)
            to_ns = site.clock.time_ns() if moment is None else moment.at_ns
            from_ns = day_start(to_ns, site.page_style.zone) if moment is None or moment.from_ns is None else moment.from_ns
            wanted = question(min(from_ns, to_ns - 1_000_000_000), to_ns, "user", "full")
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        answer = await site.feed.aside(lambda tables: tables.accounting(wanted, to_ns))
        held, idle = held_now(snapshot.hosts)
        if wants_json:
            return raw(dump(users_json(answer, held, idle)), content_type="application/json")
        if options is not None:
            return text(options.finished(users_text_table(answer, held, idle, options.style(site.terminal_style))))
        page = Page("/users", replace(asked, layout=None), 1, site.when(snapshot), None, to_ns // 1_000_000, moment is not None)
        return html(users_page(page, site.style_for(asked), answer, held, idle, busy_hours=_share(answer)))

    app.add_route(users, "/users", methods=("GET", "HEAD"), name="users")


def _share(answer: Accounting) -> int:
    """How much of all GPU time somebody held, in whole %."""
    return min(100, sum(one.held_us for one in answer.accounts) * 100 // max(1, answer.capacity_us))
