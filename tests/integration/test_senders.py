"""Senders of GPU maps over real sockets, the real log and the real consumer: what they are answered and what is shown."""

import json
import socket
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dimint.consumers.names import clean_name
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.webapp.routes import live
from tests.support.senders import GPU_MAP, Sender, consuming, gpu_entry, reporting_server
from tests.support.system import wait_until

GOLDEN = Path(__file__).parent.parent / "golden"
OK = {"status": "OK", "status_code": 200}
FORBIDDEN = {"status": "ERROR", "status_code": 403, "message": "forbidden"}
UNKNOWN = {"status": "ERROR", "status_code": 404, "message": "not in known list"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a log that a consumer follows."""
    found = tmp_path_factory.mktemp("senders")
    with consuming(found):
        yield found


@pytest.fixture(scope="module")
def address(data_dir: Path) -> Iterator[tuple[str, int]]:
    with reporting_server(data_dir) as found:
        yield found


def state_of(address: tuple[str, int], host: str, **query: Any) -> dict[str, Any]:
    answer = httpx.get(f"http://{address[0]}:{address[1]}/states/{host}/", params=query, trust_env=False).json()
    found: dict[str, Any] = answer.get(clean_name(host), {})
    return found


def data_of(address: tuple[str, int], host: str, **query: Any) -> list[dict[str, Any]]:
    return [entry for entry in state_of(address, host, **query).get("data", ()) if entry["gpu_data"]]


def text_of(address: tuple[str, int], path: str) -> str:
    return httpx.get(f"http://{address[0]}:{address[1]}{path}", trust_env=False).text


def test_map_comes_back_as_it_was_sent(address: tuple[str, int]) -> None:
    """Registered, posted at once, acknowledged, and then in `/states/` and the terminal views to the character."""
    sender = Sender(address, "host1")
    answer = sender.register()
    assert list(answer) == ["id", "register_name", "status", "status_code"]
    assert (answer["register_name"], len(bytes.fromhex(answer["id"]))) == ("host1", 16)
    assert sender.post(GPU_MAP) == OK
    assert sender.registrations == 1
    (entry,) = wait_until(lambda: data_of(address, "host1"), 20, "it is shown")
    assert list(entry) == ["gpu_data", "timestamp"]
    assert entry["gpu_data"] == GPU_MAP
    assert list(entry["gpu_data"]["gpu:0"]) == list(GPU_MAP["gpu:0"])
    arrived = datetime.strptime(str(entry["timestamp"]), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    assert timedelta(0) <= datetime.now(UTC) - arrived < timedelta(minutes=1)
    state = state_of(address, "host1")
    assert (list(state), state["status"], state["ip_address"]) == (["data", "ip_address", "status"], "running", "127.0.0.1")
    status = (GOLDEN / "terminal_status.txt").read_text().splitlines()[:6]
    assert set(status) <= set(text_of(address, "/?term=true").splitlines())
    table = (GOLDEN / "terminal_gpu_table.txt").read_text().splitlines()
    assert set(table) <= set(text_of(address, "/gpu_table?term=true").splitlines())
    assert 'dimint_consumer_lag_events{partition="0"} 0\n' in text_of(address, "/metrics")
    detail = (GOLDEN / "terminal_detail.txt").read_text().splitlines()
    shown = text_of(address, "/states/host1/?term=true").splitlines()
    assert shown[:2] == detail[:2]
    assert shown[3:12] == detail[3:12]


def test_numbers_as_text_and_missing_fields(address: tuple[str, int]) -> None:
    """Older senders send text; what is missing, null or says that it is not there is null."""
    sender = Sender(address, "old-sender.lab")
    assert sender.register()["register_name"] == "old_sender_lab"
    as_text = {key: {name: value if name == "processes" else str(value) for name, value in gpu.items()}
               for key, gpu in GPU_MAP.items()}  # fmt: skip
    for process in (processes := [dict(entry) for entry in GPU_MAP["gpu:0"]["processes"]]):
        process["used_memory"] = str(process["used_memory"])
    as_text["gpu:0"]["processes"] = processes
    assert sender.post(as_text) == OK
    assert wait_until(lambda: data_of(address, "old-sender.lab"), 20, "it is shown")[-1]["gpu_data"] == GPU_MAP
    assert sender.post({"gpu:3": {"gpu_name": "K80", "temperature": "[Not Supported]", "used_memory": None}}) == OK
    (entry,) = wait_until(lambda: data_of(address, sender.name, fetch_num=5)[1:], 20, "it is shown")
    (gpu,) = entry["gpu_data"].values()
    assert {name for name, value in gpu.items() if value is None} == {
        "uuid", "temperature", "total_memory", "available_memory", "used_memory", "gpu_volatile"
    }  # fmt: skip
    assert (gpu["device_num"], gpu["gpu_name"], gpu["processes"]) == (3, "K80", [])
    assert "| 3:K80                  |      - /      - |     - %|   - °C|" in text_of(address, "/?term=true")


def test_every_post_is_kept_in_order(address: tuple[str, int]) -> None:
    """Each acknowledged post is one sample, in the order sent, also when older ones have been sealed into a chunk."""
    sender = Sender(address, "many")
    for util in range(250):
        sender.send({"gpu:0": gpu_entry(0, "A100", 1, 2, util, 30)})
    entries = wait_until(
        lambda: found if len(found := data_of(address, "many", fetch_num=400)) == 250 else None, 20, "it is shown"
    )
    assert [entry["gpu_data"]["gpu:0"]["gpu_volatile"] for entry in entries] == list(range(250))


def test_taken_names(address: tuple[str, int]) -> None:
    """Who comes later gets 32 random bits behind the name, at once and in the tables."""
    senders = [Sender(address, name) for name in ("twin-1", "twin.1", "twin_1")]
    for sender in senders:
        sender.send(GPU_MAP)
    first, second, third = (sender.name for sender in senders)
    assert first == "twin_1"
    assert {second, third} == {f"twin_1_{sender.id[:8]}" for sender in senders[1:]}
    for sender in senders:
        assert wait_until(partial(data_of, address, sender.name), 20, "it is shown")
    again = Sender(address, "twin-1")
    again.send(GPU_MAP)
    assert again.name == f"twin_1_{again.id[:8]}"


@pytest.fixture(scope="module")
def bad_sender(address: tuple[str, int]) -> Sender:
    """A registered sender that has posted nothing yet."""
    sender = Sender(address, "bad")
    sender.register()
    return sender


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"1", b'"gpu"', b"null", b'{"gpu:0": 1}', b'{"gpu:0": []}', b'{"host": {}}', b'{"gpu:0": {"uuid": []}}',
    b'{"gpu:0": {"temperature": {}}}', b'{"gpu:0": {"temperature": NaN}}', b'{"gpu:0": {"used_memory": true}}',
    b'{"gpu:0": {"processes": 1}}', b'{"gpu:0": {"processes": [1]}}', b'{"gpu:0": {"processes": [{"pid": [1]}]}}',
    b'{"gpu:0": {"device_num": 1}, "gpu:1": {}}', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe\xfd",
    b'{"gpu:0": {"device_num": ' + b"9" * 5000 + b"}}",
    json.dumps({f"gpu:{place}": {} for place in range(300)}).encode(),
    json.dumps({"gpu:0": {"processes": [{"name": "x" * 255} for _ in range(3500)]}}).encode(),
])  # fmt: skip
def test_bad_body(bad_sender: Sender, data_dir: Path, body: bytes) -> None:
    """Anything but a map of GPUs is answered clearly, and nothing of it is stored."""
    sender = bad_sender
    answer = sender.ask(f"/update/host/{sender.id}", body)
    assert (answer["status"], answer["status_code"]) == ("ERROR", 400)
    assert 10 < len(answer["message"]) < 200
    with closing(StatusReader(data_dir / TABLES_FOLDER)) as reader:
        wait_until(lambda: reader.host(sender.id), 20, "it is in the tables")
        assert reader.last(sender.id, 1) == []


def test_too_large_body(address: tuple[str, int]) -> None:
    """More than 1 MiB is refused with the same kind of answer."""
    sender = Sender(address, "large")
    sender.register()
    # its length alone is refused: a sender that goes on writing may see the connection end before it sees the answer
    head = f"POST /update/host/{sender.id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {(1 << 20) + 1}\r\n\r\n"
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head.encode() + b"{")
        assert b'"status_code":413' in connection.makefile("rb").read()
    assert sender.post({}) == OK


@pytest.mark.parametrize("name", ["", "   ", "\u200b"[:0]])
def test_register_without_a_name(address: tuple[str, int], name: str) -> None:
    """A host without a name is not registered."""
    answer = Sender(address, name).register()
    assert answer == {"status": "ERROR", "status_code": 400, "message": "host_name is missing"}


@pytest.mark.parametrize(
    "name", ["\x1b[2J\x00", "../../etc", "'; drop table machines; --", "<script>", "ё" * 1000, "\ud800x", "%00"]
)
def test_hostile_names(address: tuple[str, int], name: str) -> None:
    """They become harmless names, under which the host is found."""
    asked = urllib.parse.quote(name.encode("utf-8", "surrogatepass"))
    given = json.loads(text_of(address, f"/register/?host_name={asked}"))
    assert given["status_code"] == 200
    assert given["register_name"].isprintable()
    assert len(given["register_name"]) <= 255
    sender = Sender(address, name)
    sender.id = given["id"]
    assert sender.post(GPU_MAP) == OK
    assert wait_until(lambda: given["register_name"] in json.loads(text_of(address, "/states/")), 20, "it is shown")


def test_unknown_ids(address: tuple[str, int]) -> None:
    """An id that nobody registered is not in the list, and a sender registers itself again."""
    sender = Sender(address, "forgotten")
    for unknown in ("0" * 32, "x", "A" * 32, "..%2f", "0" * 5000):
        assert sender.ask(f"/update/host/{unknown}", b"{}") == UNKNOWN
    sender.id = "f" * 32
    sender.send(GPU_MAP)
    assert (sender.registrations, sender.name) == (1, "forgotten")


def test_other_methods_and_foreign_pages(address: tuple[str, int]) -> None:
    """Only the documented methods, and no page of another site, can report."""
    base = f"http://{address[0]}:{address[1]}"
    with httpx.Client(base_url=base, trust_env=False) as client:
        assert client.post("/register/?host_name=x").json()["status_code"] == 405
        assert client.get(f"/update/host/{'0' * 32}").json()["status_code"] == 405
        foreign = {"Origin": "http://evil.example"}
        assert client.get("/register/?host_name=x", headers=foreign).json() == FORBIDDEN
        assert client.get("/register?host_name=slashless", headers={"Origin": base}).json()["status_code"] == 200


def test_token_and_filter(data_dir: Path) -> None:
    """Senders need the token and pass the network filter; readers need to pass the filter, the WebSocket too."""
    with reporting_server(data_dir, token="sécret", network_filter=r"10\.") as address:
        for wrong in ("", "secret", "sécret2"):
            sender = Sender(address, "guarded", wrong)
            assert sender.register() == FORBIDDEN
            sender.id = "0" * 32
            assert sender.post(GPU_MAP) == FORBIDDEN
        sender = Sender(address, "guarded", "sécret")
        sender.send(GPU_MAP)
        assert sender.registrations == 1
        assert sender.ask("/states/") == FORBIDDEN
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{address[0]}:{address[1]}/update/client/ws", proxy=None)
        assert refused.value.response.status_code == 403


def test_senders_outlive_the_server(data_dir: Path) -> None:
    """What one server registered the next one knows, also when it registered just before its end."""
    with ExitStack() as stack:
        sender = Sender(stack.enter_context(reporting_server(data_dir)), "survivor")
        sender.register()
    with reporting_server(data_dir) as address:
        later = Sender(address, "survivor")
        later.id = sender.id
        assert later.post(GPU_MAP) == OK
        assert wait_until(lambda: data_of(address, "survivor"), 20, "it is shown")


def test_tables_that_are_behind_do_not_make_hosts_unknown(tmp_path: Path) -> None:
    """Without a consumer a registered host reports on; an unknown one is told to try again, not to register again."""
    with reporting_server(tmp_path) as address:
        sender = Sender(address, "early")
        sender.send(GPU_MAP)
        assert sender.registrations == 1
        stranger = Sender(address, "stranger")
        stranger.id = "0" * 32
        assert stranger.post(GPU_MAP)["status_code"] in (404, 503)  # 404 where nothing else is in its partition
    with reporting_server(tmp_path) as address:
        later = Sender(address, "early")
        later.id = sender.id
        assert later.post(GPU_MAP)["status_code"] == 503
        with consuming(tmp_path):
            assert wait_until(lambda: later.post(GPU_MAP) == OK, 20, "it is taken")


# --- the WebSocket --------------------------------------------------------------------------------------------------
def open_live(address: tuple[str, int], **options: Any) -> ClientConnection:
    viewer: ClientConnection = connect(f"ws://{address[0]}:{address[1]}/update/client/ws", proxy=None, **options)
    return viewer


def receive(viewer: ClientConnection, timeout_s: float = 10.0) -> dict[str, Any]:
    message = viewer.recv(timeout_s)
    assert isinstance(message, str)
    found: dict[str, Any] = json.loads(message)
    return found


def silent(viewer: ClientConnection, seconds: float = 0.6) -> bool:
    try:
        viewer.recv(seconds)
    except TimeoutError:
        return True
    return False


def test_live_pages(tmp_path: Path) -> None:
    """Page 1 from the start, only who reported, other pages when asked, nothing for bad texts, a clean end."""
    with consuming(tmp_path), ExitStack() as stack:
        address = stack.enter_context(reporting_server(tmp_path, page_size=2))
        senders = [Sender(address, f"h{number}") for number in range(3)]
        for sender in senders:
            sender.send(GPU_MAP)
        for sender in senders:
            wait_until(partial(data_of, address, sender.name), 20, "it is shown")
        with open_live(address) as viewer, open_live(address) as other:
            assert silent(viewer)
            senders[2].send(GPU_MAP)  # stands on page 2
            assert silent(viewer)
            senders[1].send(GPU_MAP)
            message = receive(viewer)
            assert list(message) == ["update", "page_name_list", "total_page_num"]
            assert (list(message["update"]), message["page_name_list"], message["total_page_num"]) == (["h1"], ["h0", "h1"], 2)
            state = message["update"]["h1"]
            assert (list(state), len(state["data"])) == (["data", "ip_address", "status"], 1)
            assert state["data"][0]["gpu_data"] == GPU_MAP
            for bad in ("", "x", "-1", "1.5", "1", "{}", "9" * 100, "²", b"\x02"):
                viewer.send(bad)
            assert silent(viewer)
            viewer.send(" 2 ")
            message = receive(viewer)
            assert (list(message["update"]), message["page_name_list"]) == (["h2"], ["h2"])
            viewer.send("77")
            assert silent(viewer)
            viewer.send("1")
            assert list(receive(viewer)["update"]) == ["h0", "h1"]
            assert list(receive(other)["update"]) == ["h1"]
            began = time.monotonic()
            stack.close()
            assert time.monotonic() - began < 5
            assert list(viewer) == list(other) == []  # closed, with nothing more in them


def test_live_connections_of_bad_clients(address: tuple[str, int]) -> None:
    """A page of another site cannot follow the hosts; who sends too much is let go; the server goes on."""
    with pytest.raises(InvalidStatus) as refused:
        open_live(address, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with open_live(address) as viewer:
        viewer.send("1" * 10_000)
        with pytest.raises(ConnectionClosed):
            viewer.recv(5)
    assert httpx.get(f"http://{address[0]}:{address[1]}/update/client/ws", trust_env=False).status_code >= 400
    with open_live(address) as viewer:
        sender = Sender(address, "0 first")
        sender.send(GPU_MAP)
        assert "0 first" in receive(viewer)["update"]


def test_slow_viewer_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for page after page and reads none of them loses the connection; the others are served."""
    monkeypatch.setattr(live, "SEND_S", 1.0)
    large = {f"gpu:{place}": gpu_entry(place, "x" * 200, 1, 2, 3, 4) for place in range(250)}
    with consuming(tmp_path), reporting_server(tmp_path, page_size=1) as address, socket.socket() as viewer:
        for name in ("first", "second"):
            Sender(address, name).send(large)
            wait_until(partial(data_of, address, name), 20, "it is shown")
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.connect(address)
        viewer.sendall(
            b"GET /update/client/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        assert viewer.recv(4096).startswith(b"HTTP/1.1 101 ")
        with pytest.raises(OSError, match=r"(?i)reset|broken pipe"):
            turn_pages(viewer, until=time.monotonic() + 15)
        with open_live(address) as other:
            Sender(address, "0").send(large)
            assert list(receive(other)["update"]) == ["0"]


def turn_pages(viewer: socket.socket, until: float) -> None:
    """Ask for pages 2 and 1 in turn, as masked text frames."""
    while time.monotonic() < until:
        for page in b"21":
            viewer.sendall(b"\x81\x81\0\0\0\0" + bytes([page]))
            time.sleep(0.05)
