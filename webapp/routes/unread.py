"""`/log/unread`: the records that no reader took in, and one of them with its bytes: a page, for terminals and as JSON."""

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadPosition, BadQuery, LogError, LogMismatch, SettingsError
from dimint.replay.positions import parse_positions
from dimint.webapp.as_html import Page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_unread import UnreadView, unread_json, unread_page, unread_text
from dimint.webapp.asked import Asked
from dimint.webapp.logbook import LogBook
from dimint.webapp.routes.log_events import cannot_read
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.terminal_options import read_terminal_options

__all__ = ["add_routes"]


def add_routes(app: App, site: Site, book: LogBook | None) -> None:
    async def unread(request: Request) -> HTTPResponse:
        wants_json = request.args.get("format") == "json"
        if book is None:
            return cannot_read(request, site, "these pages are not connected to a log")
        try:
            options = read_terminal_options(request.args.get, site.page_style.limits) if is_true(request, "term") else None
            position = request.args.get("position") or ""
            view = await _chosen(book, position) if position else UnreadView(*await book.unread())
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        except (LogError, LogMismatch, SettingsError) as error:
            return cannot_read(request, site, error.message)
        if wants_json:
            return raw(dump(unread_json(view)), content_type="application/json")
        if options is not None:
            return text(options.finished(unread_text(view, options.style(site.terminal_style))))
        page = Page("", Asked(), 1, "", None, site.now_ms(), False)
        return html(unread_page(page, site.page_style, view))

    app.add_route(unread, "/log/unread", methods=("GET", "HEAD"), name="unread")


async def _chosen(book: LogBook, position: str) -> UnreadView:
    """One record, with its place in the list. Raises BadQuery."""
    try:
        ((place, offset),) = parse_positions(position).items()
    except BadPosition as error:
        raise BadQuery(f"position: {error.message}") from None
    except ValueError:
        raise BadQuery("position: give one") from None
    looked = await book.record(place, offset)
    if looked is None:
        raise BadQuery(f"position: the log has no record at {position[:80]}")
    record, found = looked
    if found is None:
        raise BadQuery(f"position: the record at {position[:80]} could be read; /log/events?from={position[:80]} shows it")
    return UnreadView((), True, (found, record.value))
