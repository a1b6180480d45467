"""docs/http.md, the routes that the web app has, and the description of its API: one and the same."""

import ast
import json
import re
from datetime import UTC
from pathlib import Path

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from sanic import Sanic

from dimint.clock import ManualClock
from dimint.webapp.api import OPERATIONS
from dimint.webapp.api_schemas import SCHEMAS
from dimint.webapp.app import Surroundings, create_app
from dimint.webapp.fields import FIELDS, SHORT
from dimint.webapp.intake import Intake
from dimint.webapp.openapi import description
from dimint.webapp.routes.live import SEND_S
from dimint.webapp.routes.stream import PACE_S
from dimint.webapp.site import STREAMS_MAX
from tests.support.answers import problem_of
from tests.support.fleet import MemoryTables
from tests.support.senders import opening
from tests.support.web import web_settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "http.md").read_text()
_READERS = {"get", "asked", "when", "is_true", "_yes", "_number", "_time", "_word"}
"""Functions whose first text is the name of a word of an address."""


def test_every_path_is_described() -> None:
    """The table has exactly the paths, methods and names that the application serves (HEAD goes with GET)."""
    clock = ManualClock()
    intake = Intake(lambda: opening(Path("/nowhere")), clock)  # never run
    app = create_app(MemoryTables(), web_settings(), clock, Surroundings(UTC), intake)
    served = {
        (method, "/" + re.sub(r":\w+>", ">", route.path).rstrip("/"), route.name.rpartition(".")[2])
        for route in app.router.routes
        for method in route.methods
        if method != "HEAD"
    }
    Sanic.unregister_app(app)
    assert len(OPERATIONS) == len(served)
    assert {(one.method, one.path.rstrip("/") or "/", one.name) for one in OPERATIONS} == served


def test_every_path_is_documented() -> None:
    """The first table of the text has these paths in this order, in these words."""
    rows = re.findall(r"^\| `(GET|POST) (/\S*)` \| (.*) \|$", TEXT, re.MULTILINE)
    assert [(method, path) for method, path, _ in rows] == [(one.method, one.path) for one in OPERATIONS]
    for one, (_, _, text) in zip(OPERATIONS, rows, strict=True):
        assert text in (one.text, f"{one.text}, see below"), one.path


def test_description_is_openapi() -> None:
    """It is valid by the specification, every shape is valid JSON Schema and used by some answer."""
    made = json.loads(json.dumps(description("1.2.3")))
    validate(made)
    assert made["info"]["version"] == "1.2.3"
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert f'"#/components/schemas/{name}"' in json.dumps(made), name


def test_words_are_those_of_the_code() -> None:
    """A word that a route reads is described, one that is described is read, and the text names it."""
    read: set[str] = set()
    for path in (
        *(ROOT / "webapp" / "routes").glob("*.py"),
        *(ROOT / "webapp" / f"{name}.py" for name in ("asked", "states_asked", "terminal_options")),
    ):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            of_headers = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value).endswith(("headers", "static"))
            if name in _READERS and not of_headers:
                words = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                read.update(word for word in words[:1] if word)
    described = {word.name for one in OPERATIONS for word in one.words} | {"token"}
    assert read == described
    for word in described - {"since"}:
        assert re.search(rf"[`?&]{word}[=`]", TEXT), word


def test_a_wrong_answer_is_seen() -> None:
    """The check that all tests of pages make does find what is not described."""
    good = b'{"a": {"data": [], "ip_address": "", "status": "down"}}'
    assert problem_of("GET", "/states/", 200, "application/json", good) is None
    for status, media, body in (
        (200, "application/json", good.replace(b"down", b"gone")),
        (200, "application/json", good.replace(b'"status"', b'"more": 1, "status"')),
        (200, "text/html", b""),
        (500, "application/json", b"{}"),
    ):
        assert problem_of("GET", "/states/", status, media, body) is not None
    assert problem_of("GET", "/nowhere", 200, "text/html", b"") is not None


def test_numbers_are_those_of_the_code() -> None:
    """Limits that the text names."""
    assert f"{STREAMS_MAX} live pages" in TEXT
    assert f"in {SEND_S:.0f} s is let go" in TEXT
    assert PACE_S == 1 / 4


def test_fields_of_filters_are_documented() -> None:
    """Every field of the filter language, and every short name, stands in the text; and no other in its table."""
    rows = TEXT[TEXT.index("| about | fields |") : TEXT.index("`util` `mem`")]
    named = set(re.findall(r"`([a-z.]+)`", rows))
    assert named == set(FIELDS)
    assert set(re.findall(r"`([a-z]+)`", TEXT[TEXT.index("`util` `mem`") :].split(" are short")[0])) == set(SHORT)
