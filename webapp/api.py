"""Every path of the web app, with the words of its address and its answers: one table. [S]

The routes, the table in docs/http.md and `/openapi.json` are tested against it.
"""

from typing import Any, Final, NamedTuple

from dimint.consumers.usage import SHARINGS
from dimint.events import TOPICS
from dimint.limits import FETCH_MAX_SAMPLES, SCAN_MAX_ITEMS
from dimint.webapp.api_schemas import Schema, ref
from dimint.webapp.as_terminal import WIDTH_MAX
from dimint.webapp.asked import LAYOUTS
from dimint.webapp.states_asked import LIMIT
from dimint.webapp.terminal_options import FORMATS, TOP_MAX, WATCH_MAX_S, WATCH_MIN_S

__all__ = ["OPERATIONS", "Answer", "Operation", "Word"]


class Word(NamedTuple):
    """A word of an address's query: `name=value`."""

    name: str
    text: str
    schema: Schema


class Answer(NamedTuple):
    """One kind of answer. `schema` is that of JSON; None for other text."""

    media: str
    schema: Schema | None = None
    status: int = 200
    text: str = "what was asked for"


class Operation(NamedTuple):
    """A path and method. `text` is how docs/http.md describes it; `parts` says what stands for the names in the path.

    `secret` = with `--token`, senders must give it.
    """

    name: str
    method: str
    path: str
    group: str
    text: str
    words: tuple[Word, ...] = ()
    answers: tuple[Answer, ...] = ()
    parts: str = ""
    body: Schema | None = None
    secret: bool = False


# --- words ----------------------------------------------------------------------------------------------------------
def _text(name: str, text: str, **more: Any) -> Word:
    return Word(name, text, {"type": "string", **more})


def _number(name: str, text: str, least: int, most: int | None = None, **more: Any) -> Word:
    bound = {} if most is None else {"maximum": most}
    return Word(name, text, {"type": "integer", "minimum": least, **bound, **more})


def _choice(name: str, text: str, *choices: str, **more: Any) -> Word:
    return Word(name, text, {"enum": list(choices), **more})


def _yes(name: str, text: str) -> Word:
    return _choice(name, text, "true", "false", "1", "0")


_TIME_TEXT: Final = "as in `-2h`, `yesterday 14:00`, `20181130232947`, `2018-11-30T23:29:47Z`, `@1543620587`"
_AT: Final = _text("at", f"everything as it was at this time, {_TIME_TEXT}")
_FROM: Final = _text("from", f"where the range begins, {_TIME_TEXT}")
_TO: Final = _text("to", "where it ends; without it now")
_LAST: Final = _text("last", "how long the charts reach back, live or before `at`; default `1h`", examples=["6h", "30d"])
_FILTER: Final = _text("filter", "which hosts, in the filter language", examples=["gpu.util<5 and held>30m"])
_SORT: Final = _text("sort", "fields of the filter language, `-` for the highest first", examples=["-gpu.util,host"])
_TERM: Final = _yes("term", "for terminals, as plain text")
_PAGE: Final = _number("page", "which page of hosts; 0 = all", 0)
_VIEW: Final = _choice("view", "the layout; without it, and with `auto`, the number of hosts decides", *LAYOUTS, "auto")
_GROUP: Final = _text("group", "how tiles are made: a tag's name, `name` or `model`")
_JSON: Final = _choice("format", "`json` for programs", "json")
_LOOK: Final = (
    _number("w", "width in columns", 1, WIDTH_MAX),
    _yes("color", "ANSI colours"),
    _yes("ascii", "nothing but ASCII"),
    _number("top", "at most so many lines of hosts", 1, TOP_MAX),
)
_FRAMES: Final = (
    *_LOOK,
    _number("watch", "a new frame every so many seconds", WATCH_MIN_S, WATCH_MAX_S),
    _choice("format", "with `term`: text, a line a GPU with tabs, or lines as JSON", *FORMATS),
)
_TIMES: Final = (_AT, _FROM, _TO)
_HOSTS: Final = (_FILTER, _SORT, *_TIMES)
_PAGES: Final = (_PAGE, _VIEW, _GROUP, *_HOSTS, _TERM)
_FIELDS: Final = _text("fields", "only these keys of every GPU's map and of `cpu_data`", examples=["gpu_volatile,cpu_percent"])
_PREFIX: Final = _text("prefix", "how the keys begin")
_ORDER: Final = _choice("order", "which changes come first", "newest", "oldest", default="newest")
_PART: Final = (
    _number("limit", "at most so many rows", 1, SCAN_MAX_ITEMS, default=100),
    _text("after", "`next` of the page before"),
)
_FETCH: Final = _number("fetch_num", "the newest so many samples", 1, FETCH_MAX_SAMPLES, default=1)

# --- answers --------------------------------------------------------------------------------------------------------
_HTML: Final = Answer("text/html")
_PLAIN: Final = Answer("text/plain")
_TSV: Final = Answer("text/tab-separated-values")
_WRONG: Final = (
    Answer("application/json", ref("Error"), 400, "a word that cannot be read"),
    Answer("text/html", None, 400, "a word that cannot be read"),
    Answer("text/plain", None, 400, "a word that cannot be read"),
)

_GONE: Final = tuple(
    Answer(media, ref("Error") if media == "application/json" else None, status, text)
    for status, text in ((503, "the store cannot tell now"), (410, "the log has been trimmed since"))
    for media in ("application/json", "text/html", "text/plain")
)


def _json(*names: str) -> Answer:
    schemas = [ref(name) for name in names]
    return Answer("application/json", schemas[0] if len(schemas) == 1 else {"anyOf": schemas})


_VIEWS: Final = (_HTML, _PLAIN, _TSV, _json("Lines"), *_WRONG)

# --- paths ----------------------------------------------------------------------------------------------------------
_KEY: Final = "the key, percent-encoded, `/` as `%2F`"
_NAME: Final = "a host's name, as it calls itself or as it is registered, or its id"

OPERATIONS: Final = (
    Operation(
        "hosts", "GET", "/", "pages",
        "the browser page: what is wrong, free GPUs, users, and what changed in the last 15 minutes, then the hosts; of a "
        "single host its charts too. `?term=true`: a table for terminals; `&detail=true`: a box for each GPU",
        (*_PAGES, _yes("detail", "with `term`: a box for each GPU"), *_FRAMES), _VIEWS,
    ),
    Operation(
        "host", "GET", "/hosts/<name>/", "pages",
        "the page of one host, with charts of the last hour, of `?last=6h` or of `?from=&to=`, what happened and who was on its "
        "GPUs; `?term=true` for terminals",
        (*_TIMES, _LAST, _TERM, *_FRAMES),
        (*_VIEWS, *(Answer(media, None, 404, "no such host") for media in ("text/html", "text/plain"))), _NAME,
    ),
    Operation(
        "host_charts", "GET", "/hosts/<name>/charts", "pages",
        "these charts again and their numbers, for the page itself; `?drawn=true` without the pictures",
        (*_TIMES, _LAST, _yes("drawn", "without pictures: the page draws the numbers")),
        (_json("Charts"), Answer("application/json", ref("Error"), 400, "the words cannot be read"),
         Answer("application/json", ref("Error"), 404, "no such host")), _NAME,
    ),
    Operation(
        "changes", "GET", "/changes", "pages",
        "what changed between `?from=` (default `-1h`) and `?to=`; `?term=true` for terminals, `?format=json` as JSON",
        (*_HOSTS, _TERM, _JSON), (_HTML, _PLAIN, _json("Changes"), *_WRONG),
    ),
    Operation(
        "alerts", "GET", "/alerts", "pages",
        "the open alerts, the worst first, of the hosts that `?filter=` leaves, of now or as they were `?at=` a time; "
        "`?term=true` for terminals, `?format=json` as JSON",
        (_FILTER, *_TIMES, _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Alerts"), *_WRONG),
    ),
    Operation(
        "users", "GET", "/users", "pages",
        "GPU-hours per user of the day, or of `?from=&to=`, and what each holds now; `?term=true` for terminals, `?format=json` "
        "as JSON",
        (*_TIMES, _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Users"), *_WRONG),
    ),
    Operation(
        "log", "GET", "/log", "pages",
        "what happened on the hosts between `?from=` (default: a day before) and `?to=`, counted by kind and hour, the newest of "
        "it in words; `?kind=gpu.xid` one kind, `?filter=` some hosts; `?term=true` for terminals, `?format=json` as JSON",
        (*_HOSTS, _text("kind", "one kind of event"), _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Log"), *_WRONG),
    ),
    Operation(
        "log_events", "GET", "/log/events", "store",
        "the log itself: events between `?from=` (a time, default an hour before, or positions) and `?to=`, counted by kind and "
        "time; the newest of those with `?topic=`, `?kind=`, `?key=`, `?source=` and `?by=` as `dimint events` has them; "
        "`?term=true` for terminals, `?format=json` as JSON",
        (
            _text("from", f"where the range begins: positions as in `dimint.kv/3@1234`, or a time, {_TIME_TEXT}"), _TO, _AT,
            _choice("topic", "only this topic", *TOPICS), _text("kind", "kinds, or how they begin: `kv.set host.*`"),
            _text("key", "a key, or how it begins: `user:*`"), _text("source", "the host that wrote"),
            _text("by", "the client or process that wrote"), _TERM, *_LOOK, _JSON,
        ),
        (_HTML, _PLAIN, _json("LogEvents"), *_WRONG, *_GONE[:3]),
    ),
    Operation(
        "unread", "GET", "/log/unread", "store",
        "dead letters: the records that no reader took in, and why; `?position=` one of them with its bytes; `?term=true` for "
        "terminals, `?format=json` as JSON",
        (_text("position", "of one record"), _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Unread"), *_WRONG, *_GONE[:3]),
    ),
    Operation(
        "cluster", "GET", "/cluster", "store",
        "overlords, nodes and who holds which partition, now or `?at=` a time, and what happened before; `?term=true` for "
        "terminals, `?format=json` as JSON",
        (*_TIMES, _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Cluster"), *_WRONG, *_GONE[:3]),
    ),
    Operation(
        "keys", "GET", "/keys/", "store",
        "the keys that start with `?prefix=`, now or `?at=` a time, a page of `?limit=` behind `?after=`; `?term=true` for "
        "terminals, `?format=json` as JSON",
        (_PREFIX, *_TIMES, *_PART, _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Keys"), *_WRONG, *_GONE),
    ),
    Operation(
        "key", "GET", "/keys/<name>/", "store",
        "a key now or `?at=` a time, what had set it, its history and the command that brings it back; `?term=true` for "
        "terminals, `?format=json`: only what it was",
        (*_TIMES, *_PART, _ORDER, _TERM, *_LOOK, _JSON),
        (_HTML, _PLAIN, _json("Key"), *_WRONG, *_GONE, Answer("text/html", None, 404, "no such key"),
         Answer("text/plain", None, 404, "no such key")), _KEY,
    ),
    Operation(
        "key_history", "GET", "/keys/<name>/history", "store",
        "JSON: the changes of a key between `?from=` and `?to=`, the newest first or `?order=oldest`, a page of `?limit=` "
        "behind `?after=`",
        (_FROM, _TO, *_PART, _ORDER), (_json("KeyHistory"), _WRONG[0], _GONE[0], _GONE[3]), _KEY,
    ),
    Operation(
        "diff", "GET", "/diff", "store",
        "the keys that start with `?prefix=` and have another value at `?to=` than at `?from=` (default `-1h`); `?term=true` "
        "for terminals, `?format=json` as JSON",
        (_PREFIX, *_TIMES, *_PART, _TERM, *_LOOK, _JSON), (_HTML, _PLAIN, _json("Differences"), *_WRONG, *_GONE),
    ),
    Operation(
        "gpu_table", "GET", "/gpu_table", "pages", "which GPUs there are, and their memory; `?term=true` for terminals",
        (*_PAGES, *_FRAMES), _VIEWS,
    ),
    Operation(
        "states", "GET", "/states/", "states",
        "JSON: every host; `?fetch_num=N` samples each (default 1); `?at=` as it was then, `?filter=` and `?sort=` as below",
        (_FETCH, _FIELDS, *_HOSTS), (_json("States", "Error"),),
    ),
    Operation(
        "host_states", "GET", "/states/<name>/", "states",
        "the same map with that one host; `?from=&to=`: its samples of a range, page by page; "
        "`?term=true`: its boxes for terminals",
        (
            _FETCH, _FIELDS, *_TIMES, _text("step", "with `from`: the last sample of every so long", examples=["1m"]),
            _number("limit", "with `from`: so many samples", 1, FETCH_MAX_SAMPLES, default=LIMIT),
            _text("cursor", "with `from`: go on where the answer with this cursor ended"), _TERM, *_FRAMES,
        ),
        (_json("States", "Lines", "Error"), _PLAIN, _TSV), _NAME,
    ),
    Operation(
        "accounting", "GET", "/accounting/", "states",
        "GPU-hours per user and host, see below; `?from=TIME&to=TIME&by=user,host&sharing=equal&format=csv`",
        (
            _FROM, _TO, _text("at", "as it was then: the seven days before it"),
            _choice("by", "what lines are told apart by", "user", "host", "user,host", default="user,host"),
            _choice("sharing", "what each of several users of one GPU held", *SHARINGS, default="full"),
            _choice("format", "the form of the answer", "json", "csv", default="json"),
        ),
        (_json("Accounting"), Answer("text/csv"), _WRONG[0]),
    ),
    Operation(
        "events", "GET", "/events", "pages", "server-sent events of a page, for the browser page itself",
        (*_PAGES, _text("since", "the log position that the page has seen")), (Answer("text/event-stream"),),
    ),
    Operation(
        "live", "GET", "/update/client/ws", "states", "WebSocket: what changes on a page, as JSON",
        (), (Answer("", None, 101, "the WebSocket is open"),),
    ),
    Operation(
        "register", "GET", "/register/", "senders", "a sender gets its id; `?host_name=NAME&token=T`",
        (_text("host_name", "how the host calls itself"),), (_json("Registered", "Error"),), secret=True,
    ),
    Operation(
        "update", "POST", "/update/host/<host>", "senders", "a sender reports; `?token=T` and a GPU map as JSON",
        (), (_json("Ok", "Error"),), "the id that `/register/` gave", ref("Report"), secret=True,
    ),
    Operation(
        "metrics", "GET", "/metrics", "service", "every host's newest sample for Prometheus, see below", (), (_PLAIN,),
    ),
    Operation(
        "openapi", "GET", "/openapi.json", "service", "this table and the shapes of the JSON as an OpenAPI 3.1 description",
        (), (Answer("application/json", {"type": "object"}),),
    ),
    Operation(
        "static", "GET", "/static/<name>", "service", "style sheet, script and icon of the pages", (),
        (
            Answer("*/*"), Answer("", None, 304, "it is still the one that the asker has"),
            Answer("application/json", ref("Error"), 404, "no such file"),
        ),
        "the file's name",
    ),
    Operation("healthy", "GET", "/-/healthy", "service", "`healthy`: the server runs", (), (_PLAIN,)),
    Operation(
        "ready", "GET", "/-/ready", "service", "`ready`: the status tables can be read; else HTTP 503", (),
        (_PLAIN, Answer("application/json", ref("Error"), 503, "the status tables cannot be read")),
    ),
)  # fmt: skip
"""Every path, in the order of docs/http.md."""
