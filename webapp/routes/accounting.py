"""`/accounting/`: GPU-hours per user and host, as JSON or CSV."""

from sanic import Request
from sanic.response import HTTPResponse, text

from dimint.consumers.accounting import as_csv, as_json, default_from, question
from dimint.errors import BadQuery, BadTime
from dimint.webapp.as_json import error_body
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.times import iso
from dimint.when import parse_time

__all__ = ["add_routes"]


def add_routes(app: App, site: Site) -> None:
    async def accounting(request: Request) -> HTTPResponse:
        now_ns = site.clock.time_ns()

        def asked(name: str, default: str) -> str:
            return request.args.get(name) or default

        def when(name: str, default_ns: int) -> int:
            text = asked(name, "")
            return parse_time(text, now_ns=now_ns, zone=site.page_style.zone) if text else default_ns

        try:
            if asked("at", "") and (asked("from", "") or asked("to", "")):
                raise BadQuery("ask either for at, or for from and to")
            at_ns = when("at", now_ns)
            from_ns, to_ns = when("from", default_from(at_ns)), when("to", at_ns)
            wanted = question(from_ns, to_ns, asked("by", "user,host"), asked("sharing", "full"))
            form = asked("format", "json")
            if form not in ("json", "csv"):
                raise BadQuery(f"there is no format {form[:40]!r}; there are json and csv")
        except (BadQuery, BadTime) as error:
            return json_answer(error_body(400, str(error)), 400)
        await site.feed.current()
        answer = await site.feed.aside(lambda tables: tables.accounting(wanted, now_ns))
        if form == "csv":
            name = {"Content-Disposition": 'attachment; filename="gpu-hours.csv"'}
            return text(as_csv(answer), content_type="text/csv; charset=utf-8; header=present", headers=name)
        return json_answer(as_json(answer, iso))

    app.add_route(accounting, "/accounting/", methods=("GET", "HEAD"), name="accounting")
