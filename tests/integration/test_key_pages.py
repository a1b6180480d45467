"""The store and its past over HTTP, from a real system: pages, terminal views, JSON, what is refused, and in a browser."""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import msgpack
import pytest

from dimint.client import Client
from dimint.system_clock import SystemClock
from dimint.webapp.store import SystemStore
from tests.support.browser import browser_page, launched, why_no_browser
from tests.support.fleet import MemoryTables
from tests.support.kv_system import kv_system
from tests.support.web import serving

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\x1b[2J\u202e/é" + "n" * 60


class Served(NamedTuple):
    """A store with something in it, and the pages of it. `then` is before the last changes, seconds since 1970."""

    store: str
    address: tuple[str, int]
    then: float

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with kv_system(tmp_path_factory.mktemp("pages"), consumers=1) as running, Client(running.address, timeout=30) as client:
        client.set("user:1", {"name": "ann"})
        client.set("user:2", {"b": b"\x00\xff"})
        client.set("user:long", 7**3000)
        client.set(HOSTILE, HOSTILE)
        for _ in range(250):
            client.incr("visits")
        time.sleep(0.05)
        then = time.time()
        time.sleep(0.05)
        client.set("user:1", {"name": "eve"})
        client.delete("user:2")
        client.set(HOSTILE, "changed")
        store = SystemStore(lambda: [running.address])
        with serving(MemoryTables(), SystemClock(), store=store) as address:
            yield Served(running.address, address, then)


def test_keys_at_any_time(served: Served) -> None:
    """What is there, what was there, page after page, with who set it."""
    now = served.json("/keys/?prefix=user:&format=json")
    assert [(one["key"], one.get("value")) for one in now["keys"]] == [("user:1", {"name": "eve"}), ("user:long", 7**3000)]
    past = served.json(f"/keys/?prefix=user:&at=@{served.then}&format=json")
    assert [one["key"] for one in past["keys"]] == ["user:1", "user:2", "user:long"]
    assert past["keys"][0]["value"] == {"name": "ann"}
    assert msgpack.unpackb(base64.b64decode(past["keys"][1]["value_msgpack"])) == {"b": b"\x00\xff"}
    assert all(one["by"]["host"] and one["position"].startswith("dimint.kv/") for one in past["keys"])
    paged = served.json(f"/keys/?prefix=user:&at=@{served.then}&format=json&limit=2")
    assert len(paged["keys"]) == 2
    assert [one["key"] for one in served.json(f"/keys/?at=@{served.then}&format=json&after={paged['next']}")["keys"]] == [
        "user:long", "visits"]  # fmt: skip
    assert '{"name":"ann"}' in served.get(f"/keys/?prefix=user:&at=@{served.then}&term=true")[1]


def test_a_key_and_its_history(served: Served) -> None:
    """The value then and now, all changes in pages either way, and what brings it back."""
    assert served.json("/keys/user%3A1/?format=json")["change"]["value"] == {"name": "eve"}
    assert served.json(f"/keys/user%3A1/?format=json&at=@{served.then}")["change"]["value"] == {"name": "ann"}
    assert served.json("/keys/nobody/?format=json")["change"] is None
    assert served.json("/keys/user%3A2/?format=json")["change"] is None
    found, after = [], ""
    for _ in range(3):
        page = served.json(f"/keys/visits/history?order=oldest&after={after}")
        found += [one["value"] for one in page["changes"]]
        after = page["next"] or ""
    assert found == list(range(1, 251))
    newest = served.json(f"/keys/visits/history?limit=3&to=@{served.then}")["changes"]
    assert [one["value"] for one in newest] == [250, 249, 248]
    assert served.json(f"/keys/user%3A2/history?from=@{served.then}")["changes"][0]["kind"] == "delete"
    status, page = served.get(f"/keys/user%3A1/?at=@{served.then}")
    assert (status, "dimint restore --to " in page, "--key user:1" in page) == (200, True, True)
    assert served.get("/keys/nobody/")[0] == 404
    text = served.get(f"/keys/{quote(HOSTILE, safe='')}/?term=true")[1]
    assert "\x1b" not in text
    assert served.json(f"/keys/{quote(HOSTILE, safe='')}/history")["changes"][1]["value"] == HOSTILE


def test_what_differs(served: Served) -> None:
    """Between any two times, by prefix."""
    found = served.json(f"/diff?from=@{served.then}&prefix=user:&format=json")["differences"]
    ends = [(one["key"], *((one[end] or {}).get("value") for end in ("before", "after"))) for one in found]
    assert ends == [("user:1", {"name": "ann"}, {"name": "eve"}), ("user:2", None, None)]
    assert "~ user:1" in served.get(f"/diff?from=@{served.then}&prefix=user:&term=true")[1]
    assert "Nothing differs" in served.get("/diff?from=2001-01-01&to=2002-01-01")[1]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/keys/?at=soon", "at: 'soon' is not a time"),
        ("/keys/?limit=0", "limit is a number from 1 to 1000"),
        ("/keys/?limit=many", "limit is a number from 1 to 1000"),
        ("/keys/?prefix=" + "x" * 600, "prefix takes at most 511 bytes"),
        ("/keys/" + "x" * 600 + "/", "the limit is 511"),
        ("/keys/k/history?after=7", "after: give what"),
        ("/keys/k/history?order=random", "order is newest or oldest"),
        ("/keys/k/history?at=-1h", "a history has no at"),
        ("/diff?from=now&to=-1h", "from is not before to"),
    ],
)
def test_bad_words_are_named(served: Served, path: str, line: str) -> None:
    """One line, HTTP 400, for eyes, terminals and programs."""
    for form in ("", "&term=true", "&format=json"):
        status, body = served.get(path + (form if "?" in path else form.replace("&", "?", 1)))
        assert status == 400
        assert line.replace("'", "&#x27;") in body or line in body


def test_without_a_store() -> None:
    """The pages say that they cannot tell, and go on."""
    store = SystemStore(list)
    with serving(MemoryTables(), SystemClock(), store=store) as address:
        for path in ("/keys/", "/keys/k/?format=json", "/keys/k/history", "/diff?term=true"):
            status, body = Served("", address, 0).get(path)
            assert (status, "no overlord is there; try again" in body) == (503, True)


def test_who_may_ask(served: Served) -> None:
    """The network filter keeps strangers from the store as from every page."""
    store = SystemStore(lambda: [served.store])
    with serving(MemoryTables(), SystemClock(), store=store, network_filter="10\\.") as address:
        assert {Served("", address, 0).get(path)[0] for path in ("/keys/", "/keys/visits/", "/keys/visits/history", "/diff")} == {
            403
        }


@pytest.mark.skipif(why_no_browser() is not None, reason=why_no_browser() or "")
def test_in_a_browser(served: Served) -> None:
    """From the list to a key, through its time and back, on a narrow screen, without a script, beside hostile keys."""
    base = f"http://{served.address[0]}:{served.address[1]}"
    with launched() as browser:
        with browser_page(browser, width=360, height=740, scripts=False) as (page, problems):
            page.goto(f"{base}/keys/?prefix=user:")
            page.get_by_role("link", name="user:1").click()
            assert '{"name":"eve"}' in page.locator("pre.value").inner_text()
            page.locator(".keys li").nth(1).locator("a").first.click()
            assert '{"name":"ann"}' in page.locator("pre.value").inner_text()
            assert "--key user:1" in page.locator("main").inner_text()
            page.get_by_role("link", name="Live", exact=True).click()
            assert '{"name":"eve"}' in page.locator("pre.value").inner_text()
            for path in ("/keys/", f"/keys/{quote(HOSTILE, safe='')}/", f"/diff?from=@{served.then}", "/keys/visits/"):
                page.goto(base + path)
                assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
            assert problems == []
        with browser_page(browser) as (page, problems):
            page.goto(f"{base}/keys/")
            page.locator(".keys a", has_text="onerror").click()
            assert page.locator("img").count() == 0
            assert page.title() != "owned"
            page.goto(f"{base}/keys/visits/")
            page.get_by_role("link", name="more").click()
            page.get_by_role("link", name="more").click()
            assert page.locator(".keys li").count() == 50
            assert problems == []
