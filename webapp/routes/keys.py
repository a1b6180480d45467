"""`/keys/`, `/keys/<key>/`, `/diff`: the store now and at any time, as pages, for terminals and as JSON."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeAlias, TypeVar

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.client import operations, past
from dimint.client.content import canonical_key
from dimint.client.operations import Operation
from dimint.errors import BadQuery, NodeNotAvailable, ParseError, PositionGone, RequestError, TimedOut, TooLarge
from dimint.limits import KEY_MAX_BYTES, SCAN_MAX_ITEMS
from dimint.webapp.as_html import Page, message_page
from dimint.webapp.as_json import error_body
from dimint.webapp.as_keys import diff_page, diff_text, key_page, key_path, key_text, keys_page, keys_text
from dimint.webapp.asked import Asked
from dimint.webapp.key_views import DiffView, KeysView, KeyView, body_of, change_fields, keys_json
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Moment, Site
from dimint.webapp.store import Store
from dimint.webapp.terminal_options import TerminalOptions, read_terminal_options
from dimint.webapp.times import iso_us

__all__ = ["add_routes"]

T = TypeVar("T")
Answering: TypeAlias = Callable[..., Coroutine[Any, Any, HTTPResponse]]
_LIMIT: Final = 100
_REFRESH_MAX_S: Final = 5
"""A browser that waits for the history to be made asks again at least so often: its page says how far that is."""
_LAST_US: Final = (1 << 63) - 1


def add_routes(app: App, site: Site, store: Store | None) -> None:
    async def ask(op: Operation[T]) -> T:
        if store is None:
            raise NodeNotAvailable("these pages are not connected to a store")
        return await store.ask(op)

    async def keys(request: Request, asked: Asked) -> HTTPResponse:
        prefix, after, limit = _word(request, "prefix"), _word(request, "after") or None, _limit(request)
        moment = site.moment(asked)
        if moment is None:
            page = await ask(operations.scan_page(prefix, after=after, limit=limit))
            view = KeysView(prefix, None, [(key, value, None) for key, value in page.items], page.next)
        else:
            at_us = moment.at_ns // 1000
            found = await ask(past.scan_page(prefix, at_us, after=after, limit=limit))
            view = KeysView(prefix, at_us, [(one.key, one.value, one) for one in found.items], found.next)
        if _wants_json(request):
            return _json(keys_json(view))
        if (options := _options(request)) is not None:
            return text(options.finished(keys_text(view, options.style(site.terminal_style))))
        words = (("prefix", prefix),) if prefix else ()
        return html(keys_page(_page(site, "/keys/", replace(_kept(asked), more=words), view.at_us), site.page_style, view))

    async def key(request: Request, asked: Asked, name: str) -> HTTPResponse:
        moment = site.moment(asked)
        at_us = None if moment is None else moment.at_ns // 1000
        name = canonical_key(name)
        change = await ask(past.get_at(name, _LAST_US if at_us is None else at_us, lambda found: found))
        if _wants_json(request):
            return _json({"key": name, "at": None if at_us is None else iso_us(at_us), "change": change_fields(change)})
        page = await ask(_history(request, name, moment))
        view = KeyView(name, at_us, change, page.items, page.next)
        status = 200 if change is not None or page.items else 404
        if (options := _options(request)) is not None:
            return text(options.finished(key_text(view, options.style(site.terminal_style))), status)
        return html(key_page(_page(site, key_path(name), _kept(asked), at_us), site.page_style, view), status)

    async def key_history(request: Request, asked: Asked, name: str) -> HTTPResponse:
        if asked.at:
            raise BadQuery("a history has no at, but from and to")
        moment = site.moment(asked)
        name = canonical_key(name)
        page = await ask(_history(request, name, moment))
        return _json({"key": name, "changes": [change_fields(one) for one in page.items], "next": page.next})

    async def diff(request: Request, asked: Asked) -> HTTPResponse:
        prefix, after = _word(request, "prefix"), _word(request, "after") or None
        moment = site.moment(replace(asked, at="", from_=asked.from_ or "-1h", to=asked.to or asked.at or "now"))
        assert moment is not None
        assert moment.from_ns is not None
        from_us, to_us = moment.from_ns // 1000, moment.at_ns // 1000
        page = await ask(past.diff_page(prefix, start=from_us, end=to_us, after=after, limit=_limit(request)))
        view = DiffView(prefix, from_us, to_us, page.items, page.next)
        if _wants_json(request):
            found = [
                {"key": one.key, "before": change_fields(one.before), "after": change_fields(one.after)} for one in page.items
            ]
            times = {"from": iso_us(from_us), "to": iso_us(to_us)}
            return _json({"prefix": prefix, **times, "differences": found, "next": page.next})
        if (options := _options(request)) is not None:
            return text(options.finished(diff_text(view, options.style(site.terminal_style))))
        shown = Asked(from_=iso_us(from_us), to=iso_us(to_us), more=(("prefix", prefix),) if prefix else ())
        return html(diff_page(_page(site, "/diff", shown, to_us), site.page_style, view))

    def guarded(handler: Answering, *, only_json: bool = False) -> Answering:
        async def guard(request: Request, **named: str) -> HTTPResponse:
            try:
                return await handler(request, site.asked(request), **named)
            except BadQuery as error:
                return refuse(request, error, 400, only_json)
            except (ParseError, TooLarge) as error:
                return refuse(request, BadQuery(error.message), 400, only_json)
            except PositionGone as error:
                return refuse(request, BadQuery(error.message), 410, only_json)
            except RequestError as error:
                so_far = error.so_far if isinstance(error, TimedOut) else None
                if so_far is None:
                    return refuse(request, BadQuery(f"{error.message}; try again"), 503, only_json)
                answer = refuse(request, BadQuery(error.message), 503, only_json)
                answer.headers["Retry-After"] = str(so_far.ask_again_s)
                answer.headers["Refresh"] = str(min(so_far.ask_again_s, _REFRESH_MAX_S))
                return answer

        return guard

    def refuse(request: Request, error: BadQuery, status: int, only_json: bool) -> HTTPResponse:
        if only_json or _wants_json(request):
            return json_answer(error_body(status, str(error)), status)
        if status == 400:
            return wrong_query(request, site, error)
        if is_true(request, "term"):
            return text(f"{error}\n", status=status)
        return html(message_page(site.page_style, "The store cannot tell", str(error)), status=status)

    for handler, path, name in ((keys, "/keys/", "keys"), (key, "/keys/<name:str>/", "key"), (diff, "/diff", "diff")):
        app.add_route(guarded(handler), path, methods=("GET", "HEAD"), name=name, unquote=True)
    history = guarded(key_history, only_json=True)
    app.add_route(history, "/keys/<name:str>/history", methods=("GET", "HEAD"), name="key_history", unquote=True)


def _page(site: Site, path: str, asked: Asked, at_us: int | None) -> Page:
    now_ms = site.now_ms() if at_us is None else at_us // 1000
    return Page(path, asked, 1, "", None, now_ms, at_us is not None)


def _kept(asked: Asked) -> Asked:
    """What a page of the store keeps of an address: its times."""
    return Asked(at=asked.at, from_=asked.from_, to=asked.to)


def _history(request: Request, name: str, moment: Moment | None) -> Operation[past.PastPage]:
    from_us = 0 if moment is None or moment.from_ns is None else moment.from_ns // 1000
    to_us = None if moment is None else moment.at_ns // 1000
    after = _word(request, "after") or None
    if after is not None and not past.CURSOR.fullmatch(after):
        raise BadQuery("after: give what `next` of the page before says")
    order = request.args.get("order") or "newest"
    if order not in ("newest", "oldest"):
        raise BadQuery("order is newest or oldest")
    return past.history_page(name, start=from_us, end=to_us, newest_first=order == "newest", after=after, limit=_limit(request))


def _options(request: Request) -> TerminalOptions | None:
    return read_terminal_options(request.args.get) if is_true(request, "term") else None


def _wants_json(request: Request) -> bool:
    return bool(request.args.get("format") == "json")


def _json(fields: dict[str, Any]) -> HTTPResponse:
    return raw(body_of(fields), content_type="application/json")


def _word(request: Request, name: str) -> str:
    found = request.args.get(name) or ""
    try:
        size = len(found.encode())
    except UnicodeEncodeError:
        raise BadQuery(f"{name} is not UTF-8") from None
    if size > KEY_MAX_BYTES:
        raise BadQuery(f"{name} takes at most {KEY_MAX_BYTES} bytes")
    return found


def _limit(request: Request) -> int:
    asked = request.args.get("limit") or str(_LIMIT)
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= SCAN_MAX_ITEMS):
        raise BadQuery(f"limit is a number from 1 to {SCAN_MAX_ITEMS}")
    return int(asked)
