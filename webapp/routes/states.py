"""`/states/` and `/states/<host>/`: what scripts read."""

from dataclasses import replace

from sanic import Request
from sanic.response import HTTPResponse, raw, text

from dimint.webapp.as_json import dump, error_body, fetch_num, host_state, states, states_item
from dimint.webapp.as_terminal import DETAIL_VIEW
from dimint.webapp.board import Board
from dimint.webapp.models import Host
from dimint.webapp.routes.pages import is_true
from dimint.webapp.site import App, Site

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
        snapshot = await site.feed.current()
        hosts = snapshot.hosts
        wanted = min(fetch_num(request.args.get("fetch_num")), max(1, _ALL_SAMPLES_MAX // max(1, len(hosts))))
        if wanted == 1:
            items = site.states_items(hosts)
        else:
            items = await site.feed.read(lambda board: [states_item(with_samples(board, host, wanted), zone) for host in hosts])
        return raw(states(items), content_type="application/json")

    async def one_host(request: Request, name: str) -> HTTPResponse:
        await site.feed.current()
        wanted = fetch_num(request.args.get("fetch_num"))
        host = await site.feed.read(lambda board: find(board, name, wanted))
        if host is None:
            return json_answer(error_body(404, "not found"))
        if is_true(request, "term"):
            return text(DETAIL_VIEW.text([host], site.terminal_style))
        return json_answer({host.name: host_state(host, zone, with_data=True)})

    app.add_route(all_hosts, "/states/", methods=("GET", "HEAD"), name="states")
    app.add_route(one_host, "/states/<name:str>/", methods=("GET", "HEAD"), name="host_states", unquote=True)


def with_samples(board: Board, host: Host, wanted: int) -> Host:
    """The host with its newest `wanted` samples."""
    return host if wanted == 1 else replace(host, samples=tuple(board.samples(host, wanted)))


def find(board: Board, name: str, wanted: int) -> Host | None:
    """The host of that name with its newest samples; None if there is none."""
    host = board.find(name) if 0 < len(name) <= _HOST_NAME_MAX_CHARS else None
    return host if host is None else with_samples(board, host, wanted)
