"""`/update/client/ws`: a WebSocket that follows one page of hosts, as JSON.

A viewer starts at page 1 and sends the number of another page as text; other text is passed over. It gets a message
whenever hosts of its page changed, with these hosts only, and at once one with all hosts of a page that it turned to. A
viewer that is slow gets fewer messages with more hosts in them; one that takes nothing is let go.
"""

import asyncio
import contextlib
from typing import Final, cast

from sanic import Request
from sanic.exceptions import RequestCancelled, ServerError
from sanic.server.websockets.impl import WebsocketImplProtocol
from websockets.exceptions import ConnectionClosed

from dimint.webapp.routes.stream import BEAT_S, PACE_S
from dimint.webapp.senders import page_asked
from dimint.webapp.site import App, Site

__all__ = ["LIVE_PATH", "MESSAGE_MAX_BYTES", "SEND_S", "add_routes"]

LIVE_PATH: Final = "/update/client/ws"
MESSAGE_MAX_BYTES: Final = 4096
"""Longest message of a viewer, who has only page numbers to send."""
SEND_S: Final = 5.0
"""A viewer must take a message in this time."""
_TURN_S: Final = 0.05
"""Shortest time between two texts that are looked at: more wait in the viewer's own connection."""
_TRY_AGAIN_LATER: Final = 1013

_GONE = (ConnectionClosed, ServerError, RequestCancelled, TimeoutError)
"""How a connection ends. (Sanic's own WebsocketClosed is a ServerError.)"""


class _Viewer:
    """One connection: its page, and the sequence that it was brought up to (-1 = nothing of this page yet)."""

    def __init__(self, site: Site, socket: WebsocketImplProtocol, since: int) -> None:
        self._site, self._socket = site, socket
        self._page = 1
        self._since = since
        self._turned = asyncio.Event()

    async def listen(self) -> None:
        """Take page numbers in until the connection ends."""
        while True:
            page = page_asked(await self._socket.recv())
            if page is not None and page != self._page:
                self._page, self._since = page, -1
                self._turned.set()
            await asyncio.sleep(_TURN_S)

    async def push(self) -> None:
        """Send what changed until the server stops."""
        feed = self._site.feed
        while not feed.stopped:
            news = asyncio.ensure_future(feed.after(self._since, BEAT_S))
            turned = asyncio.ensure_future(self._turned.wait())
            try:
                await asyncio.wait((news, turned), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
                turned.cancel()
            self._turned.clear()
            snapshot = feed.latest
            if snapshot is None or snapshot.sequence <= self._since:
                continue
            message = self._site.live_message(self._page, self._since, snapshot)
            self._since = snapshot.sequence
            if message is None:
                continue
            async with asyncio.timeout(SEND_S):
                await self._socket.send(message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._turned.wait(), PACE_S)


def add_routes(app: App, site: Site) -> None:
    async def live(request: Request, socket: WebsocketImplProtocol) -> None:
        if not site.enter():
            await socket.close(_TRY_AGAIN_LATER, "too many live pages")
            return
        latest = site.feed.latest
        viewer = _Viewer(site, socket, -1 if latest is None else latest.sequence)
        tasks = [asyncio.ensure_future(viewer.listen()), asyncio.ensure_future(viewer.push())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            site.leave()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, TimeoutError):
                cast(asyncio.Transport, request.transport).abort()  # what is queued to it would only hold memory
            elif isinstance(end, Exception) and not isinstance(end, _GONE):
                raise end

    app.add_websocket_route(live, LIVE_PATH, name="live")
