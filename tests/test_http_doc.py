"""docs/http.md against the routes that the web app has."""

import re
from datetime import UTC
from pathlib import Path

from sanic import Sanic

from dimint.clock import ManualClock
from dimint.webapp.app import Surroundings, create_app
from dimint.webapp.fields import FIELDS, SHORT
from dimint.webapp.intake import Intake
from dimint.webapp.routes.live import SEND_S
from dimint.webapp.routes.stream import PACE_S
from dimint.webapp.site import STREAMS_MAX
from tests.support.fleet import MemoryTables
from tests.support.senders import opening
from tests.support.web import web_settings

TEXT = (Path(__file__).parent.parent / "docs" / "http.md").read_text()


def test_every_path_is_documented() -> None:
    """The first table has exactly the paths and methods that the application serves (HEAD goes with GET)."""
    clock = ManualClock()
    intake = Intake(lambda: opening(Path("/nowhere")), clock)  # never run
    app = create_app(MemoryTables(), web_settings(), clock, Surroundings(UTC), intake)
    served = {
        (method, "/" + re.sub(r":\w+>", ">", route.path))
        for route in app.router.routes
        for method in route.methods
        if method != "HEAD"
    }
    Sanic.unregister_app(app)
    rows = re.findall(r"^\| `(GET|POST) (/\S*)` \|", TEXT, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert {(method, path.rstrip("/")) for method, path in rows} == {(method, path.rstrip("/")) for method, path in served}


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
