"""Containers, pods and jobs of processes: golden texts of every runtime, hostile ones, and the way into a sample."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.clock import ManualClock
from dimint.producers.cgroups import Placement, placement
from dimint.producers.pods import Pods
from dimint.producers.processes import Processes

GOLDEN = Path(__file__).parents[2] / "golden" / "cgroups.txt"
POD_UID = "2b3c4d5e-6f70-4819-9a3b-4c5d6e7f8091"


def _golden() -> list[tuple[str, Placement, str]]:
    """(title, what is expected, text) of every section."""
    found = []
    for section in GOLDEN.read_text().split("\n== ")[1:]:
        head, _, text = section.partition("\n")
        title, _, expected = head.partition(" | ")
        found.append((title, Placement(*(None if word == "-" else word for word in expected.split())), text))
    return found


@pytest.mark.parametrize(("title", "expected", "text"), _golden(), ids=[title for title, _, _ in _golden()])
def test_golden_texts(title: str, expected: Placement, text: str) -> None:
    """Every runtime's way of naming its groups, with and without systemd, in both versions."""
    assert placement(text) == expected, title


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["/", ":", "docker", "-", "a" * 64, "pod", "job_", "slurm", "\n"])).map("".join)
)
def test_any_text_is_read(text: str) -> None:
    """Whatever a group is called, what is read of it is short and of the right form."""
    found = placement(text)
    assert found.job is None or found.job.isdecimal()
    assert found.runtime == "lxc" or found.container is None or re.fullmatch("[0-9a-f]{12}", found.container)


def test_the_sample_names_container_pod_and_job(tmp_path: Path) -> None:
    """A pod has its name where the kubelet's folders are there, else its uid; what a process is not in is left out."""
    clock = ManualClock()
    texts = {title: text for title, _, text in _golden()}
    group = tmp_path / "proc" / str(os.getpid()) / "cgroup"
    group.parent.mkdir(parents=True)

    def row(title: str) -> dict[str, object]:
        group.write_text(texts[title])
        processes = Processes(clock, namespace_is_hosts=True, proc=tmp_path / "proc", pods=Pods(clock, tmp_path / "pods"))
        (found,) = processes.describe([[0, os.getpid(), 1, "C", None]])
        return {key: value for key, value in found.items() if key in ("ctr", "rt", "pod", "ns", "job")}

    title = "kubelet with containerd, version 2"
    assert row(title) == {"ctr": "1f00ba5c0ffe", "rt": "containerd", "pod": POD_UID}
    (tmp_path / "pods" / f"team-a_trainer-0_{POD_UID}").mkdir(parents=True)
    (tmp_path / "pods" / "nonsense").mkdir()
    assert row(title) == {"ctr": "1f00ba5c0ffe", "rt": "containerd", "pod": "trainer-0", "ns": "team-a"}
    assert row("slurm, version 2") == {"job": "4711"}
    assert row("a login session") == {}


def test_names_of_pods_are_listed_at_most_twice_a_minute(tmp_path: Path) -> None:
    """An unknown pod does not make the agent list the folder at every tick."""
    clock = ManualClock()
    pods = Pods(clock, tmp_path)
    assert pods.name(POD_UID) is None
    (tmp_path / f"a_b_{POD_UID}").mkdir()
    assert pods.name(POD_UID) is None
    clock.advance(31)
    assert pods.name(POD_UID) == ("a", "b")
