"""The fleet of one host: every GPU that was ever seen stays listed, with the reason where it does not answer."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dimint.producers.gpu_states import MISSING_KEEP_S, Change, Fleet


def entry(index: int, state: str = "ok", uuid: str | None = "") -> dict[str, Any]:
    """A reading's entry of the GPU that was at place `index` at first."""
    named = f"GPU-{index}" if uuid == "" else uuid
    return {"i": index, "u": named, "name": "H100" if named else None, "st": state, "mem_tot": 80}


def states(gpus: list[Any]) -> dict[str, str]:
    """UUID → state."""
    return {gpu["u"]: gpu["st"] for gpu in gpus}


def test_a_gpu_that_cannot_say_its_name_keeps_it() -> None:
    """A lost GPU without a handle is listed under the UUID that was known at its place, with its name and memory."""
    fleet = Fleet()
    fleet.apply("ok", [entry(0), entry(1)], (), 1)
    gpus, changes = fleet.apply("ok", [entry(0), entry(1, "lost", None)], (), 2)
    assert states(gpus) == {"GPU-0": "ok", "GPU-1": "lost"}
    assert gpus[1]["name"] == "H100"
    assert changes == [Change("GPU-1", "lost")]
    assert fleet.apply("ok", [entry(0), entry(1, "lost", None)], (), 3)[1] == [], "said once"
    assert fleet.apply("ok", [entry(0), entry(1)], (), 4)[1] == [Change("GPU-1", "ok")]


def test_a_gpu_that_the_driver_forgot_is_missing_also_after_a_restart() -> None:
    """The others move up in the driver's numbering; the missing one is listed behind them, and forgotten in the end."""
    fleet = Fleet()
    fleet.apply("ok", [entry(0), entry(1), entry(2)], (), 1)
    again = Fleet(fleet.remember())
    gpus, changes = again.apply("ok", [entry(0), {**entry(1), "u": "GPU-2"}], (), 10)
    assert [(gpu["i"], gpu["u"], gpu["st"]) for gpu in gpus] == [(0, "GPU-0", "ok"), (1, "GPU-2", "ok"), (2, "GPU-1", "missing")]
    assert changes == [Change("GPU-1", "missing")]
    gpus, _ = again.apply("ok", [entry(0), {**entry(1), "u": "GPU-2"}], (), 10 + MISSING_KEEP_S)
    assert "GPU-1" not in states(gpus)


def test_a_driver_that_says_nothing_loses_no_gpu() -> None:
    """Without a driver the known GPUs are unknown, with a hung one too, but for the one that hung; nothing is missing."""
    fleet = Fleet()
    fleet.apply("ok", [entry(0), entry(1)], (), 1)
    for state in ("no_library", "no_driver", "driver_mismatch", "no_permission", "unknown"):
        gpus, changes = fleet.apply(state, [], (), 2)
        assert (states(gpus), changes) == ({"GPU-0": "unknown", "GPU-1": "unknown"}, [])
    assert states(fleet.apply("hung", [], {1}, 3)[0]) == {"GPU-0": "unknown", "GPU-1": "hung"}
    assert states(fleet.apply("suspended", [], (), 4)[0]) == {"GPU-0": "suspended", "GPU-1": "suspended"}


def test_mig_instances_are_never_missed() -> None:
    """An instance that is gone was removed by an administrator."""
    fleet = Fleet()
    fleet.apply("ok", [entry(0), {**entry(1, uuid="MIG-a"), "parent": "GPU-0"}], (), 1)
    gpus, changes = fleet.apply("ok", [entry(0)], (), 2)
    assert (states(gpus), changes) == ({"GPU-0": "ok"}, [])


def instance(index: int, uuid: str) -> dict[str, Any]:
    """A reading's entry of a MIG instance of GPU-0."""
    return {**entry(index, uuid=uuid), "parent": "GPU-0", "gi": 3, "ci": 0, "profile": "1g.10gb", "mem_tot": 10, "mem_used": 5}


def test_mig_instances_of_a_gpu_that_cannot_be_asked_stay() -> None:
    """As they were, without values, also after a restart; of a lost GPU, which a reset leaves without, they are no more."""
    fleet = Fleet()
    fleet.apply("ok", [entry(0), entry(1), instance(2, "MIG-a"), instance(3, "MIG-b")], (), 1)
    for asked in (fleet, Fleet(json.loads(json.dumps(fleet.remember())))):
        slow = asked.unanswered()
        assert [(gpu["i"], gpu["u"], gpu["st"]) for gpu in slow] == [
            (0, "GPU-0", "unknown"), (1, "GPU-1", "unknown"), (2, "MIG-a", "unknown"), (3, "MIG-b", "unknown"),
        ]  # fmt: skip
        assert slow[2] == {
            "i": 2, "u": "MIG-a", "name": "H100", "st": "unknown", "mem_tot": 10, "parent": "GPU-0", "gi": 3, "ci": 0,
            "profile": "1g.10gb", "pci": None,
        }  # fmt: skip
    told = ["hung", "unknown", "suspended", "lost", "ok"]
    for state, of_instances in zip(told, ("unknown", "unknown", "suspended", None, "ok"), strict=True):
        entries = [entry(0, state), entry(1), *([instance(2, "MIG-b")] if state == "ok" else [])]
        gpus, _ = fleet.apply("ok", entries, (), 2)
        expected = {"GPU-0": state, "GPU-1": "ok"} | ({} if of_instances is None else {"MIG-b": of_instances})
        assert states(gpus) == expected | ({"MIG-a": of_instances} if of_instances not in (None, "ok") else {})
        assert [gpu["i"] for gpu in gpus] == list(range(len(gpus)))
    assert [gpu["u"] for gpu in fleet.unanswered()] == ["GPU-0", "GPU-1", "MIG-b"], "what was read last counts"
    assert states(fleet.apply("hung", [], {0}, 3)[0]) == {"GPU-0": "hung", "GPU-1": "unknown", "MIG-b": "unknown"}
    fleet.apply("ok", [entry(0), entry(1)], (), 4)
    assert [gpu["u"] for gpu in fleet.unanswered()] == ["GPU-0", "GPU-1"], "MIG was switched off"


def test_unknown_in_between_is_neither_lost_nor_back() -> None:
    """A loss is reported once and taken back once, whatever the driver says in between."""
    fleet = Fleet()
    told = []
    for state in ("ok", "lost", "unknown", "lost", "unknown", "ok", "unknown", "ok"):
        told += fleet.apply("ok", [entry(0, state)], (), 1)[1]
    assert told == [Change("GPU-0", "lost"), Change("GPU-0", "ok")]


@given(st.lists(st.lists(st.sampled_from(["ok", "lost", "hung", "unknown", "suspended", "absent"]), min_size=3, max_size=3)))
def test_reports_alternate(history: list[list[str]]) -> None:
    """Whatever happens: no GPU vanishes, places are unique, a GPU is never back without having been reported."""
    fleet = Fleet()
    fleet.apply("ok", [entry(index) for index in range(3)], (), 0)
    reported: dict[str, str] = {}
    for step, row in enumerate(history, 1):
        entries = [entry(index, state) for index, state in enumerate(row) if state != "absent"]
        for place, one in enumerate(entries):
            one["i"] = place
        gpus, changes = fleet.apply("ok", entries, (), step)
        assert {gpu["u"] for gpu in gpus} == {"GPU-0", "GPU-1", "GPU-2"}
        assert sorted(gpu["i"] for gpu in gpus) == [0, 1, 2]
        for change in changes:
            assert change.state != reported.get(change.uuid, "ok")
            reported[change.uuid] = change.state
