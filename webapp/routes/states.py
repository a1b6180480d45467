"""`/states/` and `/states/<host>/`: what scripts read."""

from msgspec.structs import replace
from sanic import Request
from sanic.response import HTTPResponse, raw

from dimint.consumers.past import cursor_text
from dimint.consumers.sealing import Key
from dimint.errors import BadQuery
from dimint.webapp.as_json import dump, error_body, fetch_num, host_state, states, states_item
from dimint.webapp.as_terminal import DETAIL_VIEW
from dimint.webapp.asked import selected
from dimint.webapp.board import Board
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.routes.pages import is_true
from dimint.webapp.routes.terminal import terminal_answer
from dimint.webapp.site import App, Moment, Site
from dimint.webapp.states_asked import StatesAsked, read_states_asked

__all__ = ["add_routes", "json_answer"]

_HOST_NAME_MAX_CHARS = 1000
_ALL_SAMPLES_MAX = 10_000
"""Samples that one answer over all hosts holds at most; more hosts get fewer each."""


def json_answer(body: object, status: int = 200) -> HTTPResponse:
    """A JSON response."""
    return raw(dump(body), status=status, content_type="application/json")


def add_routes(app: App, site: Site) -> None:
    zone = site.page_style.zone

    async def all_hosts(request: Request) -> HTTPResponse:
        try:
            asked = site.asked(request)
            fields = read_states_asked(request.args.get, in_range=False).fields
            snapshot, asked, moment = await site.snapshot(asked, bare=True)
        except BadQuery as error:
            return json_answer(error_body(400, str(error)))
        now_ns = site.clock.time_ns() if moment is None else moment.at_ns
        hosts = selected(snapshot.hosts, asked, now_ns)
        wanted = min(fetch_num(request.args.get("fetch_num")), max(1, _ALL_SAMPLES_MAX // max(1, len(hosts))))
        if moment is not None:
            items = [states_item(host, zone, fields) for host in hosts]
        elif wanted == 1:
            items = site.states_items(hosts, fields)
        else:
            items = await site.feed.read(
                lambda board: [states_item(with_samples(board, host, wanted), zone, fields) for host in hosts]
            )
        return raw(states(items), content_type="application/json")

    async def one_host(request: Request, name: str) -> HTTPResponse | None:
        wanted = fetch_num(request.args.get("fetch_num"))
        try:
            asked = site.asked(request)
            of_range = bool(asked.from_)
            how = read_states_asked(request.args.get, in_range=of_range)
            snapshot, _, moment = await site.snapshot(asked)
            host, cursor = await site.feed.read(lambda board: find(board, name, snapshot, moment, wanted, how))
            if host is None:
                return json_answer(error_body(404, "not found"))
            if is_true(request, "term"):
                return await terminal_answer(request, site, DETAIL_VIEW, only=host.id)
        except BadQuery as error:
            return json_answer(error_body(400, str(error)))
        state = host_state(host, zone, with_data=True, fields=how.fields)
        if of_range:
            state["cursor"] = None if cursor is None else cursor_text(cursor)
        return json_answer({host.name: state})

    app.add_route(all_hosts, "/states/", methods=("GET", "HEAD"), name="states")
    app.add_route(one_host, "/states/<name:str>/", methods=("GET", "HEAD"), name="host_states", unquote=True)


def with_samples(board: Board, host: Host, wanted: int) -> Host:
    """The host with its newest `wanted` samples."""
    return host if wanted == 1 else replace(host, samples=tuple(board.samples(host, wanted)))


def find(
    board: Board, name: str, snapshot: Snapshot, moment: Moment | None, wanted: int, how: StatesAsked
) -> tuple[Host | None, Key | None]:
    """The host of that name (None if there is none) with its newest `wanted` samples, or those of the range asked for.

    With a range also where the next answer would begin, if there is more of it.
    """
    host = board.find(name, snapshot) if 0 < len(name) <= _HOST_NAME_MAX_CHARS else None
    if host is None or moment is None:
        return (host if host is None else with_samples(board, host, wanted)), None
    if moment.from_ns is None:
        return host, None
    samples, cursor = board.samples_between(
        host, moment.from_ns, moment.at_ns, limit=how.limit, step_ns=how.step_ns, after=how.after
    )
    return replace(host, samples=tuple(samples)), cursor
