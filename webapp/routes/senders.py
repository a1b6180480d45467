"""`/register/` and `/update/host/<id>`: hosts that report over HTTP. Nothing is kept here that the log does not have.

A reply comes when the log has acknowledged. Whatever is wrong stands in the body, with HTTP status 200: senders look for
`status_code` there. What they may try again has 503 in it; an id that is not known has 404, and they register again.
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from sanic import Request
from sanic.response import HTTPResponse

from dimint.consumers.rows import is_host_id
from dimint.limits import HTTP_HOSTS_MAX
from dimint.webapp.access import plain_address
from dimint.webapp.as_json import error_body
from dimint.webapp.intake import NotTaken, Reports
from dimint.webapp.models import Snapshot
from dimint.webapp.routes.states import json_answer
from dimint.webapp.senders import BadReport, Newcomers, registered, reported
from dimint.webapp.site import App, Site

Answer: TypeAlias = dict[str, Any]

__all__ = ["ACK_S", "KNOWN_S", "add_routes"]

ACK_S: Final = 15.0
"""How long a report may take to reach the log before its sender is told to try again."""
KNOWN_S: Final = 2.0
"""How long the status tables may need to reach the end of the log before an unknown id is answered with "try again"."""
_LOOK_S: Final = 0.05
_ASKING_MAX: Final = 64
"""Unknown ids that are being looked for at once."""
_BIG_BODY_BYTES: Final = 32 << 10
"""A larger body is read on the reading thread: the event loop has others to serve."""


def add_routes(app: App, site: Site, reports: Reports, token: str) -> None:
    """The routes of senders that give this token (empty = any)."""
    newcomers = Newcomers()
    asking = 0

    async def register(request: Request) -> Answer:
        snapshot = await site.feed.current()
        taken = await site.feed.read(lambda board: board.names())
        newcomers.settle(snapshot.changed)
        if newcomers.full or len(snapshot.hosts) + len(newcomers) >= HTTP_HOSTS_MAX:
            raise NotTaken("too many hosts")
        wanted = request.args.get("host_name") or ""
        host, name, given = newcomers.add(wanted, taken, lambda: secrets.token_hex(16))
        try:
            await acknowledged(reports.offer(registered(host, site.clock.time_ns(), given, plain_address(request.ip))))
        except BaseException:
            newcomers.drop(host)
            raise
        return {"id": host, "register_name": name, "status": "OK", "status_code": 200}

    async def update(request: Request, host: str) -> Answer:
        time_ns = site.clock.time_ns()
        if not is_host_id(host) or not await is_known(host):
            return error_body(404, "not in known list")
        body = request.body
        if len(body) > _BIG_BODY_BYTES:
            report = await site.feed.read(lambda _board: reported(host, time_ns, body))
        else:
            report = reported(host, time_ns, body)
        await acknowledged(reports.offer(report))
        return {"status": "OK", "status_code": 200}

    async def is_known(host: str) -> bool:
        """Whether the host is in the tables or was registered here; sure of a "no" only at the end of the log."""
        nonlocal asking
        if host in newcomers or _shows(site.feed.latest, host):
            return True
        if asking >= _ASKING_MAX:
            raise NotTaken("too many unknown hosts")
        asking += 1
        try:
            async with asyncio.timeout(KNOWN_S):
                ends = await asyncio.wrap_future(reports.ends(host))
                while True:
                    read_to = await site.feed.read(lambda board: board.positions())
                    if _shows(await site.feed.current(), host):
                        return True
                    if all(read_to.get(partition, 0) >= end for partition, end in ends.items()):
                        return False
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise NotTaken("the status tables are behind the log") from None
        finally:
            asking -= 1

    def answering(handler: Callable[..., Coroutine[Any, Any, Answer]]) -> Callable[..., Coroutine[Any, Any, HTTPResponse]]:
        async def answer(request: Request, **named: str) -> HTTPResponse:
            if not _fits(request, token):
                return json_answer(error_body(403, "forbidden"))
            try:
                return json_answer(await handler(request, **named))
            except BadReport as error:
                return json_answer(error_body(400, str(error)))
            except NotTaken as error:
                return json_answer(error_body(503, f"{error}, try again"))

        return answer

    app.add_route(answering(register), "/register/", methods=("GET",), name="register")
    app.add_route(answering(update), "/update/host/<host:str>", methods=("POST",), name="update")


async def acknowledged(future: Future[None]) -> None:
    """Wait for the log. Raises NotTaken."""
    try:
        async with asyncio.timeout(ACK_S):
            await asyncio.wrap_future(future)
    except TimeoutError:
        raise NotTaken("the log has not answered in time") from None


def _fits(request: Request, token: str) -> bool:
    given = request.args.get("token") or ""
    return not token or hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8", "replace"))


def _shows(snapshot: Snapshot | None, host: str) -> bool:
    return snapshot is not None and host in snapshot.changed
