"""The web app over real sockets: answers, bad inputs, live updates, and its end."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dimint.cli_accounting import accounting
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.consumers.rows import HostEvent
from dimint.errors import CorruptRecord, SettingsError
from dimint.webapp.app import Surroundings, create_app
from dimint.webapp.server import WebServer, bind
from tests.support.fleet import MemoryTables, busy_sample, host_id
from tests.support.hosts import GTX, gpu, sample
from tests.support.samples import START_NS, Machine, registered
from tests.support.sse import events_of
from tests.support.status_log import StatusLog, feed
from tests.support.web import raw_exchange, serving, web_settings

CONTENT = sample([gpu(0, GTX, 235, 11169, 0, 36)])


class WallClock:
    """The machine's clocks."""

    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)


def filled() -> MemoryTables:
    """Three hosts: one that runs (in the future's eyes: it reported just now), a simulated one, one that never reported."""
    tables = MemoryTables()
    now = time.time_ns() + 3600 * 1_000_000_000
    tables.register(host_id(1), "gpu-01.lab", "10.0.0.1")
    tables.register(host_id(2), "sim", "10.0.0.2", simulated=True)
    tables.register(host_id(3), "new", "10.0.0.3")
    for second in range(5):
        tables.put(host_id(1), now + second * 1_000_000_000, CONTENT)
    tables.put(host_id(2), now, busy_sample(2, 0, 2))
    tables.opened.append(OpenAlert(host_id(3), "down", "", "critical", 1, 1, "new <is> down", told=False))
    _happen(tables, "gpu.xid", 864_001, xid=79)
    _happen(tables, "gpu.xid", 864_002, xid=48)
    _happen(tables, "driver.changed", 867_601, before="<b>", now="570")
    return tables


def _happen(tables: MemoryTables, kind: str, at_s: int, **fields: object) -> None:
    at_ns = at_s * 1_000_000_000
    tables.happened.append(HostEvent(host_id(3), len(tables.happened), kind, at_ns, at_ns, fields))


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving(filled(), WallClock(), down_threshold=10_000.0, http_names="status.lab, Other.Lab") as found:
        yield found


@pytest.fixture(scope="module")
def client(address: tuple[str, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as found:
        yield found


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
            told = json.loads(CliRunner().invoke(accounting, [*words, "--json"]).output)
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


@pytest.mark.parametrize(
    "path",
    ["../", "%00", "%2e%2e%2f", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%0d%0aX-Evil:1", "x" * 300, "%e2%80%ae", "%1b%5b2J",
     "%1b%5d52;c;eA==%07", "%ff%fe", "%", "a%2Fb", "'%20or%201=1", "?fetch_num=1"],
)  # fmt: skip
def test_hostile_host_names(address: tuple[str, int], path: str) -> None:
    """Whatever stands for a host: a clean answer, without its text in a header or a control character in the body."""
    request = f"GET /states/{path}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = raw_exchange(address, request.encode()).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"200", b"400", b"404"), head
    assert b"X-Evil" not in head
    assert json.loads(body)
    assert not any(byte < 32 for byte in body)


def test_security_headers(client: httpx.Client) -> None:
    """Every answer, errors too, has the headers; no origin may read it from elsewhere."""
    for path in ("/", "/states/", "/static/live.js", "/nothing"):
        headers = client.get(path, headers={"Origin": "http://evil.example"}).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_methods(client: httpx.Client) -> None:
    """HEAD has no body, OPTIONS names the methods, others are refused; unknown routes are a clean 404."""
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    options = client.options("/states/")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert client.post("/", json={}).status_code == 405
    assert client.request("BREW", "/").status_code in (400, 405)
    missing = client.get("/nothing/here")
    assert (missing.status_code, missing.json()["status_code"]) == (404, 404)
    assert "<h1>not found</h1>" in client.get("/nothing", headers={"Accept": "text/html"}).text


def test_static_files(client: httpx.Client) -> None:
    """The page's files are there, are revalidated, and nothing else is."""
    page = client.get("/").text
    for name in ("style.css", "live.js", "icon.svg"):
        assert f"/static/{name}" in page or name == "icon.svg"
        found = client.get(f"/static/{name}")
        assert found.status_code == 200
        again = client.get(f"/static/{name}", headers={"If-None-Match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(f"/static/{name}", headers={"Range": "bytes=0-1"}).content == found.content
    for name in ("../app.py", "%2e%2e%2fapp.py", "nothing.js"):
        assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "a b", "monitor.lab@evil"])
def test_foreign_host_header(address: tuple[str, int], host: str) -> None:
    """A name that is not ours is refused: a page of another site cannot read through a browser."""
    answer = raw_exchange(address, f"GET /states/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"gpu_01_lab" not in answer


def test_own_host_headers(client: httpx.Client) -> None:
    """Addresses, localhost and the names we were told pass."""
    for host in ("127.0.0.1:1", "[::1]:8080", "localhost", "Monitor.Lab:80", "192.168.7.7", "status.lab", "other.lab:81"):
        assert client.get("/states/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /?" + b"a=1&" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)  # fmt: skip
def test_broken_requests(address: tuple[str, int], client: httpx.Client, request_bytes: bytes) -> None:
    """What is not a request gets a 4xx or a closed door, and the next client is served."""
    answer = raw_exchange(address, request_bytes.replace(b"localhost\r\n", b"localhost\r\nConnection: close\r\n", 1), 1.0)
    assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert b"Traceback" not in answer
    assert client.get("/-/ready").text == "ready\n"


def test_what_is_wrong_with_a_broken_request_is_said(address: tuple[str, int]) -> None:
    """Too large and malformed are told apart, and an unknown method named like Sanic's stand-in reaches nothing."""
    for request, status, message in (
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 413, "header exceeds"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, "Bad content-length"),
        (b"NONE /states/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 405, "method not allowed"),
    ):
        head, _, body = raw_exchange(address, request, 1.0).partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status, (head, body)
        assert message.lower() in body.decode().lower()


def test_network_filter() -> None:
    """Addresses that the filter does not match are refused: pages with 403, `/states/` with 403 in the body."""
    with serving(filled(), WallClock(), network_filter=r"10\.") as (host, port):
        base = f"http://{host}:{port}"
        for path in ("/", "/gpu_table", "/?term=true", "/events"):
            assert httpx.get(base + path, trust_env=False, headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 403
        states = httpx.get(base + "/states/", trust_env=False)
        assert states.status_code == 200
        assert states.json() == {"status": "ERROR", "status_code": 403, "message": "forbidden"}
        assert httpx.get(base + "/-/healthy", trust_env=False).status_code == 200


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


def test_end_with_open_streams() -> None:
    """Stopping ends open streams and idle connections at once."""
    with serving(filled(), WallClock()) as address:
        stream = socket.create_connection(address)
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in stream.recv(4096)
        idle = socket.create_connection(address)
        began = time.monotonic()
    assert time.monotonic() - began < 4.0
    stream.close()
    idle.close()


def test_busy_port_is_one_clear_line() -> None:
    """A taken port is an error that names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"http_port: cannot listen on 127\.0\.0\.1:\d+ \(Address already in use\)"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(SettingsError, match="http_bind"):
        bind("203.0.113.1", 0)


def test_trickling_request_is_let_go() -> None:
    """A request that comes byte by byte ends at its time limit, however lively the bytes are."""
    app = create_app(MemoryTables(), web_settings(), WallClock(), Surroundings(UTC))
    app.config.REQUEST_TIMEOUT = 0.3
    server = WebServer(app, bind("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    sent = 0
    with socket.create_connection(server.address) as connection, suppress(OSError):
        while sent < 60:
            connection.sendall(b"G")
            sent += 1
            time.sleep(0.05)
    assert sent < 60
    server.stop()
    thread.join(5)


def test_stop_before_run() -> None:
    """A server that was told to stop before it ran does not run."""
    server = WebServer(create_app(MemoryTables(), web_settings(), WallClock(), Surroundings(UTC)), bind("127.0.0.1", 0))
    server.stop()
    thread = threading.Thread(target=server.run)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


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
