"""The terminal views, against the documented text and against hostile names."""

from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.webapp.as_terminal import DETAIL_VIEW, GPU_TABLE_VIEW, STATUS_VIEW, TerminalStyle
from dimint.webapp.models import Status
from dimint.webapp.text import width
from dimint.webapp.times import DateOrder
from tests.support.hosts import GTX, H100, MIB, cpu, gpu, host, sample

GOLDEN = Path(__file__).parent.parent.parent / "golden"
STYLE = TerminalStyle(UTC)
VIEWS = (STATUS_VIEW, GPU_TABLE_VIEW, DETAIL_VIEW)
status_view, gpu_table_view, detail_view = (view.text for view in VIEWS)

TWO_GPUS = sample([gpu(0, GTX, 235, 11169, 0, 36), gpu(1, H100, 79000, 81559, 100, 71)])
HOST1 = host("host1", TWO_GPUS)
DOWN = host("host_down_with_long_name_that_is_cut", TWO_GPUS, ip="192.168.100.200", status=Status.DOWN)


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


def test_status_view_is_the_documented_one() -> None:
    """`/?term=true` is the documented text to the character, with a silent host in its box."""
    assert status_view([HOST1, DOWN], STYLE) == golden("terminal_status.txt")


def test_gpu_table_is_the_documented_one() -> None:
    """`/gpu_table?term=true` is the documented text to the character."""
    assert gpu_table_view([HOST1], STYLE) == golden("terminal_gpu_table.txt")


def test_detail_view_is_the_documented_one() -> None:
    """`detail=true` is the documented text to the character for a host that sends GPU maps only."""
    processes = [
        {"g": 0, "pid": 1963, "name": "/usr/bin/X", "user": "root", "mem": 148 * MIB},
        {"g": 0, "pid": 3437, "name": "/the/quite/long/path/of/a/program/python3", "user": "user1", "mem": 87 * MIB},
    ]
    shown = host("host1", sample([gpu(0, GTX, 235, 11169, 0, 36)], processes))
    expected = golden("terminal_detail.txt").replace("2018/12/01 14:32:37.140", "2018/12/03 23:16:59.000")
    text = detail_view([shown], STYLE)
    assert text == expected


def test_down_host_in_detail_has_one_empty_box() -> None:
    """A host that is down shows its last time and an empty box that says so."""
    assert detail_view([host("h", TWO_GPUS, status=Status.DOWN)], STYLE).splitlines()[3:] == [
        "-" * 80,
        "  ┌" + "─" * 74 + "┐",
        "  │" + " " * 74 + "│",
        "  │" + "  status: down".ljust(74) + "│",
        "  │" + " " * 74 + "│",
        "  └" + "─" * 74 + "┘",
        "_" * 80,
    ]


def test_host_that_never_reported_says_so() -> None:
    """A known host without any sample waits, with words in place of a time."""
    text = status_view([host("new", None, status=Status.WAITING)], STYLE)
    assert "| status: waiting for re-uplink " in text
    assert " (127.0.0.1) last update: no entry received.  |" in text


def test_host_without_gpu_is_a_row_of_missing_values() -> None:
    """A host with a CPU only has a row in the tables, `-` in each GPU column, and its CPU line in the detail view."""
    shown = host("cpu-only", sample([], gpu_state="no_library", **cpu()))
    assert "|cpu-only          | -                      |      - /      - |     - %|   - °C|" in status_view([shown], STYLE)
    assert "|cpu-only                      | -                         |       - /       - |" in gpu_table_view([shown], STYLE)
    lines = detail_view([shown], STYLE).splitlines()
    assert lines[3] == "  cpu:  12.5 %  memory:   12288 /   65536 MiB  load: 0.50 1.25 2.00"


def test_driver_fault_is_shown_in_words() -> None:
    """A host whose driver cannot be asked does not look like one without GPUs."""
    assert "| - [driver_mismatch]    |" in status_view([host("h", sample([], gpu_state="driver_mismatch"))], STYLE)


def test_lost_gpu_is_loud() -> None:
    """A GPU that is off the bus keeps its row, says `lost` and shows no numbers."""
    lost = gpu(1, H100, None, None, None, None) | {"st": "lost"}
    text = status_view([host("h", sample([gpu(0, GTX, 1, 2, 3, 4), lost]))], STYLE)
    assert "| 1:[lost] NVIDIA H100 8…|      - /      - |     - %|   - °C|" in text


@pytest.mark.parametrize("view", VIEWS)
def test_simulated_host_is_marked_and_cannot_be_imitated(view: Any) -> None:
    """The mark survives the cutting of the name, and a real host's name cannot end with it."""
    simulated = view.text([host("s" * 300, TWO_GPUS, simulated=True)], STYLE)
    assert "… (sim)" in simulated
    assert "(sim)" not in view.text([host("real (sim)", TWO_GPUS)], STYLE)


def test_dates_follow_the_setting() -> None:
    """Day, month and year stand in the order of the setting."""
    text = detail_view([HOST1], TerminalStyle(UTC, date_order=DateOrder.DMY))
    assert "  last update: 03/12/2018 23:16:59\n" in text


NAMES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(["\x1b[2J\x1b]0;x\x07", "‮txt.exe", "漢字" * 100, "é" * 50, "​" * 9, "\ud800", "a\nb|c", "👩‍👩‍👧", "\x9b31m"]),
)
NUMBERS = st.one_of(st.none(), st.integers(-(10**20), 10**20), st.text(max_size=3), st.floats())


@settings(max_examples=150, deadline=None)
@given(NAMES, NAMES, NAMES, NUMBERS, st.sampled_from(list(Status)), st.booleans(), st.sampled_from([80, 81, 120]))
def test_no_name_breaks_a_box(name: str, other: str, ip: str, number: Any, status: Status, simulated: bool, columns: int) -> None:
    """Whatever names and numbers arrive: no control character, no line wider than the terminal, tables exactly as wide."""
    card = {"i": number, "u": other, "name": name, "st": other, "mem_tot": number, "mem_used": number, "t_mC": number}
    processes = [{"g": 0, "pid": number, "name": name, "user": other, "mem": number}]
    content = sample([card, gpu(0, other, 1, 2, 3, 4)], processes, gpu_state=other, **cpu())
    hosts = [host(name, content, ip=ip, status=status, simulated=simulated), host(other, sample([], gpu_state=name), ip=ip)]
    style = TerminalStyle(UTC, columns=columns)
    for view in VIEWS:
        text = view.text(hosts, style)
        text.encode()
        lines = text.split("\n")[:-1]
        assert all(width(line) <= columns for line in lines)
        assert all(line.isprintable() for line in lines)
        if view is not DETAIL_VIEW:
            assert {width(line) for line in lines} == {columns}
        else:
            assert all(
                line.endswith(("│", "┐", "┘")) and width(line) == columns - 2 for line in lines if line[2:3] in tuple("│┌└")
            )
