"""What an agent keeps between its starts."""

import logging
import re
from pathlib import Path

import pytest

from dimint.producers.state import host_id, known_gpus, remember_gpus, simulated_fleet


def test_the_host_keeps_its_id(tmp_path: Path) -> None:
    """128 random bits, the same at every start, with or without a machine id."""
    first = host_id(tmp_path / "agent", "machine")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert host_id(tmp_path / "agent", "machine") == first
    assert host_id(tmp_path / "agent", None) == first
    assert "machine" not in (tmp_path / "agent" / "host-id").read_text()


def test_a_copied_image_is_another_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With another machine id the directory was copied: a new id, with a notice, once."""
    first = host_id(tmp_path, "one")
    with caplog.at_level(logging.WARNING):
        second = host_id(tmp_path, "two")
    assert second != first
    assert "copy" in caplog.text
    assert host_id(tmp_path, "two") == second


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"abc\n", b"../../etc\n\n", b"0" * 33])
def test_a_damaged_id_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """Whatever stands in the file, the id is one."""
    (tmp_path / "host-id").write_bytes(damage)
    assert re.fullmatch("[0-9a-f]{32}", host_id(tmp_path, None))


def test_gpus_are_remembered(tmp_path: Path) -> None:
    """What was kept comes back; rows that are not such are left out."""
    assert known_gpus(tmp_path) == {}
    row = {"i": 0, "name": "H100", "st": "ok", "seen_s": 5, "mem_tot": 80, "pci": None}
    remember_gpus(tmp_path, {"GPU-0": row})
    assert known_gpus(tmp_path) == {"GPU-0": row}
    for text in ("[1]", "{", '{"GPU-0": 1, "GPU-1": {"i": "x"}}'):
        (tmp_path / "gpus.json").write_text(text)
        assert known_gpus(tmp_path) == {}


def test_simulated_hosts_keep_their_ids(tmp_path: Path) -> None:
    """More hosts are added, fewer are a prefix; ids are random and the seed stays."""
    seed, ids = simulated_fleet(tmp_path, 3)
    assert simulated_fleet(tmp_path, 5)[1][:3] == ids
    assert simulated_fleet(tmp_path, 2) == (seed, ids[:2])
    assert len(set(simulated_fleet(tmp_path, 5)[1])) == 5
