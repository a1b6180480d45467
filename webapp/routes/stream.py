"""`/events`: what changed on a page, as server-sent events.

The query is the page's own, with its layout as `view` and, as `since`, the log position where its data ends; a browser that
connects again says the position in `Last-Event-ID`. A query that cannot be read is answered with one event `wrong`. A client
that is slow gets fewer and bigger steps; one that takes nothing is let go by the server's response time-out.
"""

import asyncio
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse

from dimint.errors import BadQuery
from dimint.webapp.as_json import error_body
from dimint.webapp.nodes import dump_json
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site

__all__ = ["BEAT_S", "PACE_S", "add_routes"]

BEAT_S: Final = 5.0
"""A stream says at least this often that it is alive; below every time-out of the server's side."""

PACE_S: Final = 0.25
"""Shortest time between two messages of one stream."""

_EVENT_STREAM: Final = "text/event-stream; charset=utf-8"


def add_routes(app: App, site: Site) -> None:
    async def events(request: Request) -> HTTPResponse | None:
        try:
            asked = site.asked(request)
        except BadQuery as error:
            # not as an HTTP error: a browser would only try again and never show it
            response = await request.respond(content_type=_EVENT_STREAM)
            assert response is not None
            await response.send(f"retry: 3600000\nevent: wrong\ndata: {dump_json(str(error))}\n\n".encode())
            return None
        since = site.sequence_of(request.headers.get("last-event-id") or request.args.get("since"))
        if not site.enter():
            return json_answer(error_body(503, "too many live pages"), 503)
        try:
            response = await request.respond(content_type=_EVENT_STREAM)
            assert response is not None
            await response.send(b"retry: 2000\n\n")
            while not site.feed.stopped:
                snapshot = await site.feed.after(since, BEAT_S)
                if snapshot is None:
                    await response.send(f"event: beat\ndata: {site.now_ms()}\n\n".encode())
                    continue
                await response.send(site.message(asked, since, snapshot))
                since = snapshot.sequence
                await asyncio.sleep(PACE_S)
        finally:
            site.leave()
        return None

    app.add_route(events, "/events", methods=("GET",), name="events")
