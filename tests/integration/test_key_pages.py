"""The store, its past and its log over HTTP, from a real system: pages, terminal views, JSON, what is refused, a browser."""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import quote

import msgpack
import pytest

from dimint.client import Client
from dimint.events import KV_TOPIC
from dimint.genesis import DEFAULT_KV_PARTITIONS
from dimint.log.port import Entry
from dimint.system_clock import SystemClock
from dimint.webapp.cli import open_web_log
from dimint.webapp.logbook import SystemLogBook
from dimint.webapp.store import SystemStore
from tests.support.browser import browser_page, launched, why_no_browser
from tests.support.fleet import MemoryTables
from tests.support.kv_system import kv_system
from tests.support.web import serving, web_settings

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\x1b[2J\u202e/é" + "n" * 60


class Served(NamedTuple):
    """A store with something in it, and the pages of it. `then` is before the last changes, seconds since 1970."""

    store: str
    address: tuple[str, int]
    then: float
    dead: str = ""

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
        place = web_settings(data_dir=running.directory, log=str(running.directory))
        book = SystemLogBook(lambda: open_web_log(place))
        source, _ = open_web_log(place)
        with closing(source):
            (dead,) = (future.result() for future in source.append([Entry(KV_TOPIC, 3, HOSTILE.encode() + b"\x00\xff")]))
        with serving(MemoryTables(), SystemClock(), store=store, book=book) as address:
            yield Served(running.address, address, then, f"dimint.kv/3@{dead}")


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
        ("/log/events?topic=x", "there is no topic 'x'"),
        ("/log/events?from=dimint.kv/99@1", "from: there is no dimint.kv/99"),
        ("/log/events?from=dimint.kv/1@9999", "from: offset 9999 of dimint.kv/1 is outside"),
        ("/log/events?from=soon", "from: 'soon' is not a time"),
        ("/log/events?to=dimint.kv/1@1", "to is a time"),
        ("/log/unread?position=x", "position: 'x' is not a position"),
        ("/log/unread?position=dimint.kv/0@99999", "the log has no record at"),
    ],
)
def test_bad_words_are_named(served: Served, path: str, line: str) -> None:
    """One line, HTTP 400, for eyes, terminals and programs."""
    for form in ("", "&term=true", "&format=json"):
        status, body = served.get(path + (form if "?" in path else form.replace("&", "?", 1)))
        assert status == 400
        assert line.replace("'", "&#x27;") in body or line in body


def test_the_log_counted_and_searched(served: Served) -> None:
    """Kinds over time, the newest first, page after page; any of the words narrows; a position leads on from there."""
    view = served.json("/log/events?topic=dimint.kv&format=json")
    assert {kind: sum(counts) for kind, counts in view["counts"].items() if kind.startswith("kv.")} == {
        "kv.delete": 1, "kv.incr": 250, "kv.set": 6}  # fmt: skip
    assert view["counted_from"] is None
    assert (view["events"][0]["kind"], view["events"][0]["key"]) == ("kv.set", HOSTILE)
    found, words = [], "&topic=dimint.kv&kind=kv.incr"
    for _ in range(10):
        page = served.json(f"/log/events?format=json{words}")
        found += [one["id"] for one in page["events"]]
        if page["next"] is None:
            break
        words = "&topic=dimint.kv&kind=kv.incr" + "".join(f"&{name}={quote(word)}" for name, word in page["next"].items())
    assert len(found) == len(set(found)) == 250
    one = served.json("/log/events?format=json&key=user:1")["events"]
    assert [event["fields"]["value"] for event in one] == [{"name": "eve"}, {"name": "ann"}]
    assert served.json("/log/events?format=json&key=user:1&by=nobody")["events"] == []
    assert served.json(f"/log/events?format=json&key=user:*&to=@{served.then}&kind=kv.*")["events"][0]["key"] == "user:long"
    forward = served.json(f"/log/events?format=json&from={one[1]['position']}&key=user:1")["events"]
    assert [event["id"] for event in forward] == [one[1]["id"], one[0]["id"]]
    text = served.get("/log/events?term=true&key=user:1")[1]
    assert "kv.set user:1" in text
    assert "\x1b" not in served.get("/log/events?term=true")[1]


def test_the_cluster_now_and_then(served: Served) -> None:
    """Who is there and who holds what; before the first one came nobody was."""
    now = served.json("/cluster?format=json")
    assert [one["address"] for one in now["overlords"]] == [f"tcp://{served.store}"]
    assert len(now["nodes"]) == 1
    node = now["nodes"][0]["id"]
    assert {(one["master"], one["problem"], one["lag"] is None) for one in now["partitions"]} == {(node, None, False)}
    then = served.json(f"/cluster?at=@{served.then}&format=json")
    assert [(one["partition"], one["master"]) for one in then["partitions"]] == [
        (number, node) for number in range(DEFAULT_KV_PARTITIONS)
    ]
    assert [one["id"] for one in then["nodes"]] == [node]
    assert {one["kind"] for one in then["happened"]} == {"overlord.joined", "node.joined", "cluster.assigned"}
    before = served.json("/cluster?at=2001-01-01&format=json")
    assert (before["overlords"], before["nodes"], before["partitions"]) == ([], [], [])
    assert f"partition   0 {node}" in served.get("/cluster?term=true")[1]
    metrics = served.get("/metrics")[1]
    served_last = f'dimint_store_partition_served{{partition="{DEFAULT_KV_PARTITIONS - 1}"}} 1'
    assert {"dimint_store_up 1", f'dimint_node_up{{node="{node}"}} 1', served_last} <= set(metrics.splitlines())
    assert served.get("/cluster?at=soon")[0] == 400


def test_dead_letters(served: Served) -> None:
    """Where it is, why, and its bytes."""
    found = served.json("/log/unread?format=json")
    assert found["complete"]
    assert [(one["position"], one["reason"], one["redriven"]) for one in found["records"]] == [(served.dead, "foreign", None)]
    one = served.json(f"/log/unread?position={served.dead}&format=json")["records"][0]
    assert bytes.fromhex(one["hex"]) == HOSTILE.encode() + b"\x00\xff"
    text = served.get(f"/log/unread?position={served.dead}&term=true")[1]
    assert "3c 2f 73 63 72 69 70 74" in text
    status, body = served.get(f"/log/unread?position=dimint.kv/3@{int(served.dead.rpartition('@')[2]) - 1}")
    assert (status, "could be read" in body) == (400, True)


def test_without_a_store() -> None:
    """The pages say that they cannot tell, and go on."""
    store = SystemStore(list)
    with serving(MemoryTables(), SystemClock(), store=store) as address:
        for path in ("/keys/", "/keys/k/?format=json", "/keys/k/history", "/diff?term=true"):
            status, body = Served("", address, 0).get(path)
            assert (status, "no overlord is there; try again" in body) == (503, True)
        for path in ("/log/events", "/log/unread?format=json", "/log/events?term=true"):
            assert Served("", address, 0).get(path)[0] == 503


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
            page.locator(".keylist li").nth(1).locator("a").first.click()
            assert '{"name":"ann"}' in page.locator("pre.value").inner_text()
            assert "--key user:1" in page.locator("main").inner_text()
            page.get_by_role("link", name="Live", exact=True).click()
            assert '{"name":"eve"}' in page.locator("pre.value").inner_text()
            for path in ("/keys/", f"/keys/{quote(HOSTILE, safe='')}/", f"/diff?from=@{served.then}", "/keys/visits/",
                         "/log/events", "/log/unread", "/cluster",
                         "/cluster?at=-1s", f"/log/unread?position={served.dead}"):  # fmt: skip
                page.goto(base + path)
                assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
            page.goto(f"{base}/log/events")
            assert page.get_by_label("key").is_visible()
            page.goto(f"{base}/keys/?prefix=user:")
            page.get_by_role("link", name="what has changed").click()
            assert "user:long" in page.locator("main").inner_text()
            assert problems == []
        with browser_page(browser) as (page, problems):
            page.goto(f"{base}/keys/")
            page.locator(".keylist a", has_text="onerror").click()
            assert page.locator("img").count() == 0
            assert page.title() != "owned"
            page.goto(f"{base}/log/events")
            page.get_by_label("key").fill("user:*")
            page.get_by_role("button", name="Search").click()
            assert page.locator(".keylist li").count() == 5
            page.locator(".loglines a", has_text="kv.delete").click()
            page.locator(".keylist a", has_text="user:2").click()
            assert "There is no such key" in page.locator("main").inner_text()
            page.locator(".keylist a.place").first.click()
            assert "kv.delete" in page.locator("main").inner_text()
            page.goto(f"{base}/log/unread")
            page.get_by_role("link", name=served.dead).click()
            assert "onerror" in page.locator("main").inner_text()
            assert page.locator("img").count() == 0
            page.goto(f"{base}/keys/visits/")
            page.get_by_role("link", name="more").click()
            page.get_by_role("link", name="more").click()
            assert page.locator(".keylist li").count() == 50
            assert problems == []
