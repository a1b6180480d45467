"""`/log/events`: the log as a timeline, and searched: a page, for terminals and as JSON."""

from collections.abc import Mapping
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadPosition, BadQuery, BadTime, LogError, LogMismatch, OffsetOutOfRange, SettingsError
from dimint.events import TOPICS
from dimint.replay.filters import Filter
from dimint.replay.positions import Bound, format_positions, parse_bound
from dimint.webapp.as_events import EventsView, SearchWords, events_json, events_page, events_text
from dimint.webapp.as_html import Page, message_page
from dimint.webapp.as_json import error_body
from dimint.webapp.asked import Asked
from dimint.webapp.key_views import body_of
from dimint.webapp.logbook import LogBook, Question
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.terminal_options import read_terminal_options
from dimint.webapp.timeline import timeline_of_minutes

__all__ = ["add_routes", "cannot_read"]

_DEFAULT_NS: Final = 3600 * 1_000_000_000
_ROWS: Final = 100
_WORD_MAX_CHARS: Final = 600


def add_routes(app: App, site: Site, book: LogBook | None) -> None:
    async def log_events(request: Request) -> HTTPResponse:
        wants_json = request.args.get("format") == "json"
        try:
            asked = site.asked(request)
            words = _words(request)
            start, to_ns = _bounds(request, site, asked)
            options = read_terminal_options(request.args.get, site.page_style.limits) if is_true(request, "term") else None
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        if book is None:
            return cannot_read(request, site, "these pages are not connected to a log")
        topics: tuple[str, ...] = (words.topic,) if words.topic else TOPICS
        if not isinstance(start, int):
            topics = tuple(topic for topic in TOPICS if any(place.topic == topic for place in start))
        wanted = Filter.of(
            kinds=tuple(words.kind.split()), key=words.key or None, source=words.source or None, who=words.by or None
        )
        try:
            looked = await book.look(Question(topics, wanted, start, to_ns, _ROWS))
        except (BadPosition, OffsetOutOfRange) as error:
            refused = BadQuery(f"from: {error.message}")
            return json_answer(error_body(400, str(refused)), 400) if wants_json else wrong_query(request, site, refused)
        except (LogError, LogMismatch, SettingsError) as error:
            return cannot_read(request, site, error.message)
        from_ns = start if isinstance(start, int) else _first_ns(looked.counts.minutes, to_ns)
        further = looked.further
        if further is None:
            on = None
        elif isinstance(further, int):
            on = {"from": asked.from_, "to": f"@{further // 10**9}.{further % 10**9:09d}"}
        else:
            on = {"from": format_positions(further), "to": asked.to}
        line = timeline_of_minutes(looked.counts.minutes, from_ns, to_ns)
        view = EventsView(words, from_ns, to_ns, line, looked.counts.since_ns, looked.found, not isinstance(start, int), on)
        if wants_json:
            return raw(body_of(events_json(view)), content_type="application/json")
        if options is not None:
            return text(options.finished(events_text(view, options.style(site.terminal_style))))
        kept = tuple((name, word) for name, word in (("topic", words.topic), ("kind", words.kind), ("key", words.key),
                                                     ("source", words.source), ("by", words.by)) if word)  # fmt: skip
        live = not (asked.at or asked.from_ or asked.to)
        page = Page("/log/events", Asked(at=asked.at, from_=asked.from_, to=asked.to, more=kept), 1, "", None,
                    to_ns // 1_000_000, not live)  # fmt: skip
        return html(events_page(page, site.page_style, view))

    app.add_route(log_events, "/log/events", methods=("GET", "HEAD"), name="log_events")


def cannot_read(request: Request, site: Site, message: str) -> HTTPResponse:
    """The log cannot be read now."""
    line = f"{message}; try again"
    if request.args.get("format") == "json":
        return json_answer(error_body(503, line), 503)
    if is_true(request, "term"):
        return text(f"{line}\n", status=503)
    return html(message_page(site.page_style, "The log cannot be read", line), status=503)


def _words(request: Request) -> SearchWords:
    words = SearchWords(_word(request, "topic"), _word(request, "kind"), _word(request, "key"), _word(request, "source"),
                        _word(request, "by"))  # fmt: skip
    if words.topic and words.topic not in TOPICS:
        raise BadQuery(f"there is no topic {words.topic[:40]!r}; there are {', '.join(TOPICS)}")
    return words


def _word(request: Request, name: str) -> str:
    found = (request.args.get(name) or "").strip()
    if len(found) > _WORD_MAX_CHARS:
        raise BadQuery(f"{name} takes at most {_WORD_MAX_CHARS} characters")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise BadQuery(f"{name} is not UTF-8") from None
    return found


def _bounds(request: Request, site: Site, asked: Asked) -> tuple[Bound, int]:
    """Where to start and the end in ns. Raises BadQuery."""
    now_ns = site.clock.time_ns()
    if asked.at and (asked.from_ or asked.to):
        raise BadQuery("ask either for at, or for from and to")
    end = _bound(site, "at" if asked.at else "to", asked.at or asked.to, now_ns)
    if not isinstance(end, int):
        raise BadQuery("to is a time; from may be positions")
    start = _bound(site, "from", asked.from_, max(0, end - _DEFAULT_NS))
    if isinstance(start, int) and start >= end:
        raise BadQuery("from is not before to")
    return start, end


def _bound(site: Site, name: str, text: str, default: int) -> Bound:
    if not text:
        return default
    try:
        return parse_bound(text, now_ns=site.clock.time_ns(), zone=site.page_style.zone)
    except (BadTime, BadPosition) as error:
        raise BadQuery(f"{name}: {error.message}") from None


def _first_ns(minutes: Mapping[str, Mapping[int, int]], to_ns: int) -> int:
    """Where a timeline from positions on begins: at the first minute that has anything."""
    found = [minute for kinds in minutes.values() for minute in kinds]
    return min(found, default=to_ns // (60 * 10**9) - 1) * 60 * 10**9
