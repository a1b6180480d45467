"""The web server over real sockets: hostile and broken requests, who may ask, files, and its end."""

import json
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC

import httpx
import pytest

from dimint.errors import SettingsError
from dimint.system_clock import SystemClock
from dimint.webapp.app import Surroundings, create_app
from dimint.webapp.server import WebServer, bind
from tests.support import web_lab
from tests.support.fleet import MemoryTables, host_id, simulated_fleet
from tests.support.web import raw_exchange, serving, web_settings
from tests.support.web_lab import WallClock, filled

address, client = web_lab.address, web_lab.client


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
    for path, words in (("/nothing", "not found"), ("/hosts/no%1b%5bbody/", r"no\x1b[body is not known")):
        terminal = client.get(f"{path}?term=true")
        assert (terminal.status_code, terminal.text) == (404, f"{words}\n")


def test_a_single_host_has_its_charts_on_the_first_page() -> None:
    """Live and of a past range, as on its own page; not in another layout, with a filter, or beside a second host."""
    fleet = simulated_fleet(1, time.time_ns(), minutes=20)
    with serving(fleet.tables, SystemClock()) as (host, port), httpx.Client(base_url=f"http://{host}:{port}") as client:
        fleet.report(time.time_ns())
        page = client.get("/").text
        assert page.count("<figcaption>") > 6
        assert f'data-refresh="/hosts/{host_id(fleet.hosts[0].number)}/charts?"' in page
        assert "Processes in this time" in page
        past = client.get("/?from=-15m&to=-5m").text
        assert "<figcaption>" in past
        assert "data-refresh" not in past
        for query in ("?view=rows", "?filter=sim"):
            assert "<figcaption>" not in client.get(f"/{query}").text
        fleet.tables.register(host_id(9), "second")
        fleet.tables.put(host_id(9), time.time_ns(), {})
        assert "<figcaption>" not in client.get("/").text


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
