"""The web app over real sockets: answers, live updates, and what cannot be read."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dimint.cli_accounting import accounting
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.errors import CorruptRecord
from tests.support import web_lab
from tests.support.fleet import MemoryTables, host_id
from tests.support.hosts import GTX, gpu, sample
from tests.support.samples import START_NS, Machine, registered
from tests.support.sse import events_of
from tests.support.status_log import StatusLog, feed
from tests.support.web import serving
from tests.support.web_lab import WallClock, filled

address, client = web_lab.address, web_lab.client


def test_terminal_views(client: httpx.Client) -> None:
    """Plain text for curl: tables, details, one host, a page."""
    table = client.get("/?term=true")
    assert table.headers["content-type"] == "text/plain; charset=utf-8"
    assert "|gpu_01_lab        | 0:GeForce GTX 1080 Ti  |    235 /  11169 |     0 %|  36 °C|" in table.text
    assert "|sim (sim) " in table.text
    assert "waiting for re-uplink" in table.text
    assert client.get("/?term=true&detail=true").text.count("### ") == 3
    assert client.get("/states/gpu-01.lab/?term=true").text.startswith("\n### gpu_01_lab :: 10.0.0.1 ####")
    assert client.get("/gpu_table?term=true").text.startswith("+------------------------------+")
    assert client.get("/?term=true&page=0").text == client.get("/?term=true&page=x").text == table.text


@pytest.mark.parametrize("query", ["page=-1", "term=true&page=-1", "term=true&detail=true&page=-20"])
def test_negative_page(client: httpx.Client, query: str) -> None:
    """A negative page is refused in words."""
    assert client.get(f"/?{query}").text == "invalid page number."


def test_states(client: httpx.Client) -> None:
    """All hosts, one host by both its names, several entries, and what is not there."""
    found = client.get("/states/").json()
    assert list(found) == ["gpu_01_lab", "new", "sim"]
    assert found["gpu_01_lab"]["status"] == "running"
    assert found["sim"]["simulated"] is True
    for name in ("gpu_01_lab", "gpu-01.lab"):
        one = client.get(f"/states/{name}/?fetch_num=3").json()["gpu_01_lab"]
        stamps = [entry["timestamp"] for entry in one["data"]]
        assert len(stamps) == 3
        assert stamps == sorted(stamps)
    assert len(client.get("/states/?fetch_num=2").json()["gpu_01_lab"]["data"]) == 2
    missing = client.get("/states/nobody/")
    assert missing.status_code == 200
    assert missing.json() == {"status": "ERROR", "status_code": 404, "message": "not found"}


def test_a_range_page_by_page(address: tuple[str, int], client: httpx.Client) -> None:
    """Samples of a range in pages that miss and repeat nothing, of every step the last, and only the fields asked for."""
    whole = client.get("/states/gpu-01.lab/?from=@0&to=2100-01-01").json()["gpu_01_lab"]
    assert (len(whole["data"]), whole["cursor"]) == (5, None)
    entries: list[Any] = []
    cursor: Any = ""
    pages = 0
    while cursor is not None:
        page = client.get(f"/states/gpu-01.lab/?from=@0&to=2100-01-01&limit=2&cursor={cursor}").json()["gpu_01_lab"]
        entries += page["data"]
        cursor, pages = page["cursor"], pages + 1
    assert (entries, pages) == (whole["data"], 3)
    last = whole["data"][-1]["timestamp"]
    stepped = client.get("/states/gpu-01.lab/?from=@0&to=2100-01-01&step=1w").json()["gpu_01_lab"]["data"]
    assert [entry["timestamp"] for entry in stepped][-1] == last
    few = client.get("/states/gpu-01.lab/?fields=temperature,gpu_volatile,cpu_percent").json()["gpu_01_lab"]["data"][0]
    assert few == {"gpu_data": {"gpu:0": {"temperature": 36, "gpu_volatile": 0}}, "timestamp": last}
    assert client.get("/states/?fields=cores").json()["gpu_01_lab"]["data"] == [{"gpu_data": {}, "timestamp": last}]
    for query, words in (
        ("fields=heat", "there is no field 'heat'"), ("limit=5", "say from"), ("from=-1h&limit=0", "limit is a number"),
        ("from=-1h&limit=10001", "limit is a number"), ("from=-1h&step=soon", "step: "), ("from=-1h&cursor=1", "cursor: "),
        ("cursor=1.1", "say from"),
    ):  # fmt: skip
        refused = client.get(f"/states/gpu-01.lab/?{query}").json()
        assert (refused["status_code"], words in refused["message"]) == (400, True), refused


def test_accounting(client: httpx.Client) -> None:
    """GPU-hours as JSON and CSV; what cannot be asked is said in one line."""
    answer = client.get("/accounting/?from=@172801&to=@176399&by=user&sharing=equal").json()
    assert (answer["from"], answer["to"], answer["sharing"], answer["gpu_hours"]) == (
        "1970-01-03T00:00:01Z", "1970-01-03T00:59:59Z", "equal", []
    )  # fmt: skip
    assert answer["error_bound_s"] == 0
    assert client.get("/accounting/").json()["from"].endswith(":00:00Z")
    then = client.get("/accounting/?at=@1000000").json()
    assert (then["from"], then["to"]) == ("1970-01-05T13:00:00Z", "1970-01-12T13:46:40Z")
    assert client.get("/accounting/?at=-1h&to=now").status_code == 400
    table = client.get("/accounting/?format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert table.text == "user,host,held,active,wasted,unknown\r\n"
    for query in ("from=now", "to=-8d", "from=soon", "by=gpu", "sharing=x", "format=xml"):
        refused = client.get(f"/accounting/?{query}")
        assert (refused.status_code, refused.json()["status_code"]) == (400, 400)


def test_users_as_json(client: httpx.Client) -> None:
    """What the page says for programs; a time that cannot be read is an error of JSON."""
    assert client.get("/users?format=json&at=@1000000").json() == {
        "from": "1970-01-12T00:00:00Z", "to": "1970-01-12T13:46:40Z", "users": [],
    }  # fmt: skip
    wrong = client.get("/users?format=json&at=soon")
    assert (wrong.status_code, wrong.json()["status_code"]) == (400, 400)


def test_accounting_has_the_digits_of_the_command(tmp_path: Path) -> None:
    """The page and `dimint accounting` say the same of the same tables, to the last digit, as JSON and as CSV."""
    log = StatusLog()
    log.put([registered(host_id(1), "gpu-01")], logged_at_ns=START_NS)
    machine = Machine(5, gpus=4, cores=2)
    for time_ns, event in machine.events(300):
        log.put([["host.sample", host_id(1), *event[2:]]], time_ns=time_ns, logged_at_ns=time_ns)
    folder = feed(log, tmp_path / TABLES_FOLDER)
    begin, end = START_NS // 10**9 + 101, START_NS // 10**9 + 1207
    with serving(StatusReader(folder), WallClock()) as (host, port):
        for by, sharing in (("user,host", "memory"), ("user", "equal")):
            query = f"from=@{begin}&to=@{end}&by={by}&sharing={sharing}"
            page = httpx.get(f"http://{host}:{port}/accounting/?{query}", trust_env=False).json()
            table = httpx.get(f"http://{host}:{port}/accounting/?{query}&format=csv", trust_env=False).text
            words = [f"--data_dir={tmp_path}", f"--from=@{begin}", f"--to=@{end}", f"--by={by}", f"--sharing={sharing}"]
            told = json.loads(CliRunner().invoke(accounting, [*words, "--json"]).stdout)
            assert page["gpu_hours"]
            assert page["error_bound_s"] == 5
            assert {key: told[key] for key in page if key not in ("from", "to")} == {
                key: page[key] for key in page if key not in ("from", "to")
            }
            assert CliRunner().invoke(accounting, [*words, "--csv"]).output == table.replace("\r\n", "\n")


def test_alerts(client: httpx.Client) -> None:
    """Open alerts on their own page, first among the problems, and on the page of their host; of now and of a past time."""
    assert client.get("/alerts?format=json").json()["alerts"][0] | {"since": ""} == {
        "severity": "critical", "rule": "down", "host": "new", "subject": "", "where": "", "text": "new <is> down",
        "since": "", "raised": "1970-01-02T00:00:00Z", "told": False,
    }  # fmt: skip
    assert "✖ critical" in client.get("/alerts?term=true").text
    assert "X critical" in client.get("/alerts?term=true&ascii=1").text
    assert client.get("/alerts?format=json&filter=host==sim").json() == {"alerts": []}
    for path in ("/alerts", "/", "/hosts/new/", "/?term=true&view=rows"):
        body = client.get(path).text
        assert ("new <is> down" if "term" in path else "new &lt;is&gt; down") in body, path
    assert "new &lt;is&gt; down" in client.get("/?at=-1h").text, "it was open then"
    assert "new &lt;is&gt; down" not in client.get("/?at=@0").text
    assert [len(client.get(f"/alerts?format=json&at={at}").json()["alerts"]) for at in ("-1h", "@0")] == [1, 0]
    for query in ("at=soon&format=json", "from=now&to=-1h"):
        assert client.get(f"/alerts?{query}").status_code == 400


def test_log(client: httpx.Client) -> None:
    """What happened: counted by kind and hour, the newest first, of one kind, of some hosts, in a range; nothing as markup."""
    found = client.get("/log?format=json&from=@864000&to=@871200").json()
    assert (found["from"], found["first"], found["step_s"], found["more"]) == (
        "1970-01-11T00:00:00Z", "1970-01-11T00:00:00Z", 3600, False
    )  # fmt: skip
    assert found["counts"] == {"driver.changed": [0, 1, 0], "gpu.xid": [2, 0, 0]}
    assert [event["kind"] for event in found["events"]] == ["driver.changed", "gpu.xid", "gpu.xid"]
    one = client.get("/log?format=json&from=@864000&to=@871200&kind=gpu.xid&filter=host==sim").json()
    assert (one["counts"], one["events"]) == ({}, [])
    page = client.get("/log?from=@864000&to=@871200&kind=driver.changed").text
    assert "driver &lt;b&gt; → 570" in page
    assert "XID" not in page
    assert "kind=gpu.xid" in page
    assert "driver <b> → 570" in client.get("/log?term=true&from=@864000&to=@871200").text
    assert client.get("/log?at=@871200&format=json").json()["counts"].keys() == found["counts"].keys()
    assert "Nothing happened" in client.get("/log").text
    assert client.get("/log?from=soon&format=json").status_code == client.get("/log?at=now&to=now").status_code == 400


def test_metrics(client: httpx.Client) -> None:
    """What Prometheus scrapes, twice: the second time from what was kept."""
    first, second = client.get("/metrics"), client.get("/metrics")
    assert first.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert first.text == second.text
    assert 'dimint_host_up{host="gpu_01_lab"} 1\n' in first.text
    assert 'dimint_host_up{host="new"} 0\n' in first.text
    assert 'simulated="true"' in first.text


@pytest.mark.parametrize("number", ["-1", "0", "1000000000", "1e3", "", "%00", "9" * 4000])
def test_fetch_num_of_every_kind(client: httpx.Client, number: str) -> None:
    """No number of entries is an error."""
    assert client.get(f"/states/gpu_01_lab/?fetch_num={number}").json()["gpu_01_lab"]["status"] == "running"


def test_live_updates() -> None:
    """A stream begins where the page ends, brings a commit within a second, only what changed, and resumes by its id."""
    tables = filled()
    with serving(tables, WallClock(), down_threshold=10_000.0) as (host, port):
        base = f"http://{host}:{port}"
        page = httpx.get(base + "/", trust_env=False).text
        query = page.split('data-events="')[1].split('"')[0].replace("&amp;", "&")
        with httpx.stream("GET", base + query, trust_env=False, timeout=10) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            found = events_of(response.iter_lines())
            began = time.monotonic()
            tables.put(host_id(1), time.time_ns() + 7200 * 1_000_000_000, sample([gpu(0, GTX, 9999, 11169, 42, 77)]))
            kind, fields = next(found)
            assert time.monotonic() - began < 1.0
            message = json.loads(fields["data"])
            assert kind == "parts"
            assert [part[1]["id"] for part in message["parts"]] == ["head", f"h-{host_id(1)}"]
            assert "42 %" in fields["data"]
            assert message["order"] is None
        tables.register(host_id(9), "a-new-one")
        headers = {"Last-Event-ID": fields["id"]}
        with httpx.stream("GET", base + query, trust_env=False, timeout=10, headers=headers) as response:
            _, fields = next(events_of(response.iter_lines()))
            message = json.loads(fields["data"])
            assert [part[1]["id"] for part in message["parts"]] == ["head", f"h-{host_id(9)}"]
            assert message["order"][0] == f"h-{host_id(9)}"
        with httpx.stream("GET", base + "/events?since=other-7", trust_env=False, timeout=10) as response:
            _, fields = next(events_of(response.iter_lines()))
            assert len(json.loads(fields["data"])["parts"]) == 5


def test_unreadable_tables_are_said_and_survived() -> None:
    """While the tables cannot be read nothing old is passed off as new; when they can be again, all is well."""
    tables = filled()
    with serving(tables, WallClock()) as (host, port), httpx.Client(base_url=f"http://{host}:{port}", trust_env=False) as client:
        assert client.get("/-/ready").status_code == 200
        tables.fault = CorruptRecord("a stored sample is damaged: secret detail")
        for path in ("/", "/states/", "/?term=true", "/-/ready"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "secret detail" not in answer.text
        assert client.get("/-/healthy").status_code == 200
        tables.fault = None
        assert client.get("/states/").status_code == 200


def test_words_for_terminals(client: httpx.Client) -> None:
    """Views for many hosts, filters, widths, tabs, lines for programs, frames; what is wrong is one line."""
    rows = client.get("/?term=true&view=rows&w=60").text.splitlines()
    assert any(line.startswith("● gpu_01_lab") for line in rows)
    assert all(len(line) <= 60 for line in rows)
    assert "sim" not in client.get("/?term=true&filter=not+simulated").text
    assert "\x1b[" not in client.get("/?term=true&view=auto").text
    assert "\x1b[" in client.get("/?term=true&view=auto&color=1").text
    assert client.get("/?term=true&detail=true&ascii=1").text.isascii()
    assert client.get("/?term=true&format=tsv").text.startswith("host\tip\tstatus")
    lines = client.get("/?term=true&view=rows&format=json").json()["lines"]
    assert {line["host"] for line in lines} == {None, "gpu_01_lab", "new", "sim"}
    wrong = client.get("/?term=true&filter=util%3C")
    assert (wrong.status_code, wrong.text) == (400, "a value is missing after gpu.util<\n")
    with client.stream("GET", "/?term=true&view=rows&watch=1") as response:
        seen = ""
        for part in response.iter_text():
            seen += part
            if seen.count("\x1b[H") == 2:
                break
    assert "gpu_01_lab" in seen.split("\x1b[H")[2]


def test_states_of_the_past() -> None:
    """`/states/` and one host at a time, and a host's samples of a range in pages."""
    tables = MemoryTables()
    now = time.time_ns()
    tables.register(host_id(1), "h", "10.0.0.1")
    for minutes in (30, 20, 10):
        tables.put(host_id(1), now - minutes * 60_000_000_000, sample([gpu(0, GTX, 1, 2, minutes, 4)]))
    with serving(tables, WallClock()) as (host, port), httpx.Client(base_url=f"http://{host}:{port}", trust_env=False) as client:

        def utils(path: str) -> list[int]:
            return [entry["gpu_data"]["gpu:0"]["gpu_volatile"] for entry in client.get(path).json()["h"]["data"]]

        assert utils("/states/?at=-20m") == [20]
        assert utils("/states/h/?at=-25m") == [30]
        assert utils("/states/h/?from=-25m&to=now") == [20, 10]
        late = client.get("/?at=2100-01-01&term=true")
        assert (late.status_code, late.text.strip()) == (400, "at: 2100-01-01 lies in the future; nothing is known of it yet")
        wrong = client.get("/states/?at=soon")
        assert (wrong.status_code, wrong.json()["status_code"]) == (200, 400)
        assert client.get("/states/?filter=gpu.util%3E15").json() == {}
