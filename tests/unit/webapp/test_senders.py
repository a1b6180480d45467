"""GPU maps as senders post them, their names and page numbers; no sockets."""

import json
from contextlib import suppress
from datetime import UTC
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.rows import is_host_id
from dimint.limits import PROCESSES_MAX, SENDERS_NEW_MAX
from dimint.webapp.access import is_foreign_page
from dimint.webapp.as_json import gpu_data
from dimint.webapp.senders import BadReport, Newcomers, page_asked, reported, sample_of
from dimint.webapp.view import sampled
from tests.support.hosts import MIB
from tests.support.senders import GPU_MAP


def shown(content: object) -> dict[str, Any]:
    """What `/states/` would show of a posted map."""
    return gpu_data(sampled(0, sample_of(json.dumps(content).encode())), UTC)


texts = st.none() | st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable())
heats = st.none() | st.integers(-50, 200)
loads = st.none() | st.integers(0, 100)
counts = st.none() | st.integers(0, 1 << 30)
processes = st.fixed_dictionaries(
    {"pid": st.integers(0, 1 << 22).map(str), "name": texts, "user": texts, "used_memory": counts}
)  # fmt: skip


@st.composite
def gpu_maps(draw: st.DrawFn) -> dict[str, Any]:
    """Complete maps with whatever values, in any order of GPUs."""
    return {
        f"gpu:{place}": {
            "device_num": place, "uuid": draw(texts), "gpu_name": draw(texts), "temperature": draw(heats),
            "total_memory": draw(counts), "available_memory": draw(counts), "used_memory": draw(counts),
            "timestamp": draw(st.text("0123456789/:. ", min_size=1, max_size=23)), "gpu_volatile": draw(loads),
            "processes": draw(st.lists(processes, max_size=4)),
        }
        for place in draw(st.lists(st.integers(0, 300), unique=True, max_size=5))
    }  # fmt: skip


@given(gpu_maps())
def test_map_is_shown_as_it_was_sent(content: dict[str, Any]) -> None:
    """What was posted comes back equal, GPUs and fields in their order."""
    found = shown(content)
    assert found == content
    assert list(found) == list(content)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from([*GPU_MAP, *GPU_MAP["gpu:0"], "x"]) | st.text(), inner))))  # fmt: skip
def test_any_json_is_a_sample_or_refused(content: object) -> None:
    """Nothing else comes out, and a sample can be stored and shown."""
    try:
        sample = sample_of(json.dumps(content).encode())
    except BadReport as error:
        told = str(error)
    else:
        told = json.dumps(gpu_data(sampled(0, msgpack.unpackb(msgpack.packb(sample))), UTC))
    assert told


@given(st.binary(max_size=200))
def test_any_bytes_are_a_sample_or_refused(body: bytes) -> None:
    """No other error."""
    with suppress(BadReport):
        sample_of(body)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("36", 36), (" 36 ", 36), ("36.4", 36), (36.0, 36), ("-5", -5), ("", None), ("[N/A]", None), ("nan", None), ("1e3", None),
     ("٣", None),
     ("9" * 100, None), (10**30, None), (1e308, None), (-300, None), (None, None)],
)  # fmt: skip
def test_numbers(sent: object, kept: int | None) -> None:
    """Numbers and texts of numbers count; what is none, or cannot be, is not available."""
    assert shown({"gpu:0": {"temperature": sent}})["gpu:0"]["temperature"] == kept


def test_missing_fields() -> None:
    """They are null, the place comes from the key, and what is left is reckoned only where the sender does not say."""
    gpu = shown({"gpu:7": {"total_memory": "100", "used_memory": 30}})["gpu:7"]
    assert (gpu["device_num"], gpu["available_memory"], gpu["processes"], gpu["uuid"]) == (7, 70, [], None)
    assert (
        shown({"gpu:0": {"total_memory": 100, "used_memory": 30, "available_memory": None}})["gpu:0"]["available_memory"] is None
    )
    assert shown({}) == {}
    assert sample_of(b"{}")["gpu_state"] == "no_gpu"


def test_unknown_processes_are_not_none() -> None:
    """A GPU without a list of processes is marked as unread, one with an empty list is not."""
    assert "procs_err" not in sample_of(b'{"gpu:0": {"uuid": "a", "processes": []}}')
    assert list(sample_of(b'{"gpu:0": {"uuid": "a"}}')["procs_err"]) == ["a"]


def test_surplus_processes() -> None:
    """The smallest ones go, and their number is told."""
    many = {"gpu:0": {"processes": [{"used_memory": size} for size in range(PROCESSES_MAX + 5)]}}
    sample = sample_of(json.dumps(many).encode())
    assert sample["proc_more"] == 5
    assert [process["mem"] for process in sample["proc"]] == [size * MIB for size in range(5, PROCESSES_MAX + 5)]


def test_texts_are_cut_and_can_be_stored() -> None:
    """Long names end, lone surrogates become visible."""
    gpu = sample_of(json.dumps({"gpu:0": {"gpu_name": "\ud800" + "x" * 1000, "uuid": 5}}).encode())["gpu"][0]
    assert gpu["name"] is not None
    assert gpu["name"].startswith("\\ud800x")
    assert (len(gpu["name"]), gpu["u"]) == (256, "5")


def test_size_of_a_report() -> None:
    """It is what the log gets, and more than a sample may have is refused."""
    report = reported("0" * 32, 1, json.dumps(GPU_MAP).encode())
    assert report.size == len(msgpack.packb(report.sample))
    large = {"gpu:0": {"processes": [{"name": "x" * 250} for _ in range(PROCESSES_MAX)]}}
    with pytest.raises(BadReport, match="over the limit"):
        reported("0" * 32, 1, json.dumps(large).encode())


# --- names ----------------------------------------------------------------------------------------------------------
def ids(*firsts: str) -> Any:
    """Draws ids that begin so."""
    return iter([first.ljust(32, "0") for first in firsts]).__next__


def test_names_of_newcomers() -> None:
    """The first has the plain name; later ones get bits of their id; a suffix that is taken is drawn again."""
    newcomers = Newcomers()
    first = newcomers.add("gpu-01.lab", set(), ids("a"))
    assert first == ("a".ljust(32, "0"), "gpu_01_lab", "gpu-01.lab")
    assert newcomers.add("gpu_01@lab", set(), ids("b"))[1:] == ("gpu_01_lab_b0000000", "gpu_01_lab_b0000000")
    assert newcomers.add("x", {"x", "x_c0000000"}, ids("c", "d"))[:2] == ("d".ljust(32, "0"), "x_d0000000")
    assert newcomers.add("a.,-@[]:;b", set(), ids("e"))[1] == "a________b"
    assert all(is_host_id(host) for host in ("a".ljust(32, "0"), "b".ljust(32, "0"), "d".ljust(32, "0")))


@given(st.lists(st.text(max_size=300), max_size=8))
def test_names_are_unique_and_harmless(names: list[str]) -> None:
    """Whatever hosts are called, each gets another printable name of at most 255 characters."""
    newcomers, given_names = Newcomers(), []
    for number, name in enumerate(names):
        try:
            _, registered, told = newcomers.add(name, set(), ids(f"{number:08x}"))
        except BadReport:
            continue
        told.encode()
        given_names.append(registered)
    assert len(set(given_names)) == len(given_names)
    assert all(name.isprintable() and 0 < len(name) <= 255 for name in given_names)


def test_newcomers_are_forgotten_when_the_tables_show_them() -> None:
    """Known until then, gone after; and bounded."""
    newcomers = Newcomers()
    host = newcomers.add("h", set(), ids("a"))[0]
    newcomers.settle({"other"})
    assert host in newcomers
    newcomers.settle({host})
    assert host not in newcomers
    dropped = newcomers.add("h", set(), ids("b"))[0]
    newcomers.drop(dropped)
    assert len(newcomers) == 0
    for number in range(SENDERS_NEW_MAX):
        assert not newcomers.full
        newcomers._names[str(number)] = str(number)
    assert newcomers.full


# --- viewers --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "page"),
    [("2", 2), (" 3\n", 3), ("0", 0), ("-1", None), ("", None),
     ("²", None), ("1e3", None), ("9" * 50, None), (b"1", None), (None, None)]
)  # fmt: skip
def test_page_asked(text: object, page: int | None) -> None:
    """Only page numbers as text count."""
    assert page_asked(text) == page


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [(None, "a:8080", False), ("http://a:8080", "A:8080", False), ("https://a", "a", False), ("http://b:8080", "a:8080", True),
     ("null", "a", True), ("http://a:9", "a:8080", True), ("", "a", True)],
)  # fmt: skip
def test_foreign_pages(origin: str | None, host: str, foreign: bool) -> None:
    """Another origin than the host that is asked is another site."""
    assert is_foreign_page(origin, host) is foreign
