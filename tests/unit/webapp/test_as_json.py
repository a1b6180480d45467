"""The JSON that scripts read."""

import json
from datetime import UTC

import pytest

from dimint.webapp.as_json import dump, error_body, fetch_num, gpu_data, host_state, states, states_item
from dimint.webapp.models import Status
from tests.support.hosts import GTX, MIB, cpu, gpu, host, sample

CONTENT = sample(
    [gpu(0, GTX, 235, 11169, 0, 36)], [{"g": 0, "pid": 1963, "name": "/usr/bin/X", "user": "root", "mem": 148 * MIB}]
)


def test_gpu_map_is_the_documented_one() -> None:
    """Names, order and units of a GPU's map."""
    shown = host("host1", CONTENT, at="2018/11/30 23:29:47.115")
    assert shown.newest is not None
    assert json.dumps(gpu_data(shown.newest, UTC)) == json.dumps({
        "gpu:0": {
            "device_num": 0, "uuid": "GPU-00000000", "gpu_name": GTX, "temperature": 36, "total_memory": 11169,
            "available_memory": 10934, "used_memory": 235, "timestamp": "2018/11/30 23:29:47.115", "gpu_volatile": 0,
            "processes": [{"pid": "1963", "name": "/usr/bin/X", "user": "root", "used_memory": 148}],
        }
    })  # fmt: skip


def test_states_of_hosts_in_each_status() -> None:
    """A running host shows its data; others an empty map with their last time; one that never reported, words."""
    hosts = [host("up", CONTENT), host("gone", CONTENT, status=Status.DOWN), host("new", None, status=Status.WAITING)]
    found = json.loads(states(states_item(shown, UTC) for shown in hosts))
    assert list(found["up"]) == ["data", "ip_address", "status"]
    assert found["up"]["status"] == "running"
    assert found["gone"] == {
        "data": [{"gpu_data": {}, "timestamp": 20181203231659}], "ip_address": "127.0.0.1", "status": "down",
    }  # fmt: skip
    assert found["new"]["data"] == [{"gpu_data": {}, "timestamp": "no entry received."}]
    assert found["new"]["status"] == "waiting for re-uplink"
    assert host_state(hosts[1], UTC, with_data=True)["data"][0]["gpu_data"]["gpu:0"]["used_memory"] == 235


def test_additions_stand_behind_the_old_keys() -> None:
    """CPU, state and the simulated mark are more keys at the end; missing values are null."""
    lost = gpu(0, GTX, None, None, None, None) | {"st": "lost"}
    found = host_state(host("h", sample([lost], **cpu()), simulated=True), UTC, with_data=False)
    assert list(found) == ["data", "ip_address", "status", "simulated"]
    entry = found["data"][0]
    assert list(entry) == ["gpu_data", "timestamp", "cpu_data"]
    card = entry["gpu_data"]["gpu:0"]
    assert (card["used_memory"], card["temperature"], card["gpu_volatile"], card["state"]) == (None, None, None, "lost")
    assert entry["cpu_data"]["cpu_percent"] == 12.5


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 1),
        ("", 1),
        ("-1", 1),
        ("0", 1),
        ("7", 7),
        ("1e3", 1),
        ("1000000000", 10_000),
        ("９", 1),
        (" 3", 1),
        ("9" * 5000, 10_000),
    ],
)
def test_fetch_num(text: str | None, number: int) -> None:
    """What cannot be read is 1; what is too much is the limit."""
    assert fetch_num(text) == number


def test_names_that_utf8_cannot_carry() -> None:
    """A lone surrogate stays an escape, so the answer can always be sent."""
    assert json.loads(dump({"\ud800": "\x00é"})) == {"\ud800": "\x00é"}
    assert json.loads(dump(error_body(404, "not found"))) == {"status": "ERROR", "status_code": 404, "message": "not found"}
