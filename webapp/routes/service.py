"""Health, readiness, metrics, the description of the API and the static files."""

import asyncio
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse, raw, text

from dimint import __version__
from dimint.client import operations
from dimint.errors import RequestError
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_metrics import CONTENT_TYPE
from dimint.webapp.cluster import ClusterView, cluster_at, with_status
from dimint.webapp.intake import NotTaken, Reports
from dimint.webapp.metrics import Metrics
from dimint.webapp.openapi import description
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.store import Store

__all__ = ["HEALTH_PREFIX", "add_routes"]

HEALTH_PREFIX = "/-/"


_ENDS_S: Final = 2.0
"""How long log and store may take to say how they are; a scrape does without rather than wait."""


def add_routes(app: App, site: Site, reports: Reports | None = None, store: Store | None = None) -> None:
    made, scraping = Metrics(site.clock), asyncio.Lock()
    described = dump(description(__version__))

    async def healthy(_request: Request) -> HTTPResponse:
        return text("healthy\n")

    async def ready(_request: Request) -> HTTPResponse:
        await site.feed.current()
        return text("ready\n")

    async def metrics(_request: Request) -> HTTPResponse:
        async with scraping:
            snapshot = await site.feed.current()
            ends = await log_ends()
            up, view = await ask_store()
            read = await site.feed.read(lambda board: made.read(board, snapshot, ends))
            whole = read._replace(system=read.system._replace(store_up=up, store=view))
            return raw(await site.feed.aside(lambda _tables: made.text(whole)), content_type=CONTENT_TYPE)

    async def ask_store() -> tuple[bool | None, ClusterView | None]:
        """Whether an overlord answers in time, and what it tells of the store."""
        if store is None:
            return None, None
        try:
            async with asyncio.timeout(_ENDS_S):
                status = await store.ask(operations.ask("status"))
        except (RequestError, TimeoutError):
            return False, None
        return True, with_status(cluster_at((), None), status)

    async def log_ends() -> dict[int, int] | None:
        """Where the status topic ends; asked before the tables are, so that they are never ahead of it."""
        if reports is None:
            return None
        try:
            async with asyncio.timeout(_ENDS_S):
                return await asyncio.wrap_future(reports.ends())
        except (NotTaken, TimeoutError):
            return None

    async def openapi(_request: Request) -> HTTPResponse:
        return raw(described, content_type="application/json")

    async def static(request: Request, name: str) -> HTTPResponse:
        file = site.static.get(name)
        if file is None:
            return json_answer(error_body(404, "not found"), 404)
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in (request.headers.get("if-none-match") or "").split(", "):
            return raw(b"", status=304, headers=headers)
        return raw(file.body, headers=headers, content_type=file.content_type)

    app.add_route(healthy, "/-/healthy", methods=("GET", "HEAD"), name="healthy")
    app.add_route(ready, "/-/ready", methods=("GET", "HEAD"), name="ready")
    app.add_route(metrics, "/metrics", methods=("GET", "HEAD"), name="metrics")
    app.add_route(openapi, "/openapi.json", methods=("GET", "HEAD"), name="openapi")
    app.add_route(static, "/static/<name:str>", methods=("GET", "HEAD"), name="static")
