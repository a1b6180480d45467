"""Which GPUs a host has and how each is, from readings that may lack some of them. [S]

The driver forgets a GPU that is dead after a reboot, numbers the others anew, and cannot name one that is lost; a hung
driver says nothing at all. So every GPU that was ever seen is kept by UUID, with its name and last place, and a GPU that
is not in a reading stays listed with the reason. One that stays missing is forgotten after MISSING_KEEP_S.

::

    the reading says            the GPU is
    ok, unknown, suspended      that
    lost, hung                  that; under the UUID of the known GPU at that place if the driver cannot name it
    nothing, driver ok          missing
    nothing, driver hung        unknown (hung, if it was the one that hung)
    nothing, other host state   unknown
    nothing, all suspended      suspended

`told` in a row is the bad state that was reported last and not taken back yet: "unknown" in between changes nothing.

MIG instances come and go by the administrator's will, so one that is not in a reading of its GPU is no more. A GPU that
cannot be asked keeps those it had: unknown, or suspended as it is. One that is lost or missing has none, because a reset
takes them away.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from dimint.sample import Gpu

__all__ = ["MISSING_KEEP_S", "Change", "Fleet"]

MISSING_KEEP_S = 7 * 24 * 3600
_GONE = ("lost", "hung", "missing")
_UNNAMED = "unknown-"
"""Begins what stands for the UUID of a GPU that was never named."""
_INSTANCES_OF = {"hung": "unknown", "unknown": "unknown", "suspended": "suspended"}
"""The state of a GPU that cannot be asked, and that of the MIG instances it had."""
_LAYOUT = ("u", "name", "mem_tot", "parent", "gi", "ci", "profile")
"""What is kept of an instance."""


class Change(NamedTuple):
    """A GPU stopped answering (`state` lost, hung or missing) or answers again (`state` ok)."""

    uuid: str
    state: str


class Fleet:
    """The GPUs of one host. `known` is what `remember` gave, perhaps by an earlier process."""

    def __init__(self, known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._known: dict[str, dict[str, Any]] = {uuid: dict(row) for uuid, row in (known or {}).items()}

    def remember(self) -> dict[str, dict[str, Any]]:
        """What to keep for the next start: UUID → place, name, memory, state and when it was last seen."""
        return {uuid: dict(row) for uuid, row in sorted(self._known.items())}

    def apply(
        self, state: str, entries: Sequence[Mapping[str, Any]], hung: Collection[int], now_s: int
    ) -> tuple[list[Gpu], list[Change]]:
        """The sample's list of GPUs, and what changed since the last call.

        `entries` are the reading's; `state` is the host's, "ok" if the driver answered; `hung` are places whose call
        never returned.
        """
        named = {entry["u"] for entry in entries if entry.get("u")}
        free = {row["i"]: uuid for uuid, row in self._known.items() if uuid not in named and row["st"] != "missing"}
        gpus: list[Gpu] = []
        for entry in entries:
            gpu = dict(entry)
            if not gpu.get("u"):
                gpu["u"] = free.pop(gpu["i"], None) or f"{_UNNAMED}{gpu['i']}"
            known = self._known.get(gpu["u"])
            if known is not None and gpu["st"] != "ok":
                gpu |= {key: known[key] for key in ("name", "mem_tot", "pci") if gpu.get(key) is None}
            gpus.append(Gpu(**gpu))  # type: ignore[typeddict-item]
        changes = [change for gpu in gpus if (change := self._see(gpu, now_s))]
        seen = {gpu["u"] for gpu in gpus}
        for uuid, row in sorted(self._known.items(), key=lambda item: int(item[1]["i"])):
            if uuid in seen:
                continue
            if state == "ok" and now_s - row["seen_s"] > MISSING_KEEP_S:
                del self._known[uuid]
                continue
            gpu_state = _state_of_unseen(state, row["i"] in hung)
            gpus.append(_without_values(len(gpus), uuid, row, gpu_state))
            changes += self._move(uuid, row, gpu_state)
        self._keep_layouts(gpus)
        return [*gpus, *self._unread_instances(gpus)], changes

    def unanswered(self) -> list[Gpu]:
        """The GPUs that there are, as far as is known while the driver has not answered in time: nothing of what they do."""
        rows = sorted(self._known.items(), key=lambda item: int(item[1]["i"]))
        gpus = [_without_values(at, uuid, row, "unknown") for at, (uuid, row) in enumerate(rows)]
        return [*gpus, *self._unread_instances(gpus)]

    def _keep_layouts(self, gpus: Sequence[Gpu]) -> None:
        """Remember which MIG instances the GPUs have that could be asked."""
        layouts: dict[str, list[dict[str, Any]]] = {gpu["u"]: [] for gpu in gpus if gpu["st"] == "ok" and not gpu.get("parent")}
        for gpu in gpus:
            if (parent := gpu.get("parent")) in layouts and not gpu["u"].startswith(_UNNAMED):
                layouts[parent].append({key: gpu.get(key) for key in _LAYOUT})
        for uuid, layout in layouts.items():
            if layout:
                self._known[uuid]["mig"] = layout
            else:
                self._known.get(uuid, {}).pop("mig", None)

    def _unread_instances(self, gpus: Sequence[Gpu]) -> list[Gpu]:
        """The MIG instances, as they were, of GPUs that cannot be asked; none that is listed already."""
        listed = {gpu["u"] for gpu in gpus}
        found: list[Gpu] = []
        for gpu in gpus:
            state = _INSTANCES_OF.get(gpu["st"])
            for instance in self._known.get(gpu["u"], {}).get("mig", ()) if state else ():
                if instance["u"] not in listed:
                    kept = {key: instance.get(key) for key in _LAYOUT}
                    found.append(Gpu(i=len(gpus) + len(found), st=state, pci=gpu.get("pci"), **kept))  # type: ignore[typeddict-item]
        return found

    def _see(self, gpu: Gpu, now_s: int) -> Change | None:
        uuid, state = gpu["u"], gpu["st"]
        if gpu.get("parent") or uuid.startswith(_UNNAMED):
            return None  # MIG instances come and go by the administrator's will
        row = self._known.setdefault(uuid, {"st": state, "seen_s": now_s})
        row |= {
            "i": gpu["i"],
            "name": gpu.get("name"),
            "pci": gpu.get("pci"),
            "mem_tot": gpu.get("mem_tot") or row.get("mem_tot"),
        }
        if state in ("ok", "suspended"):
            row["seen_s"] = now_s
        moved = self._move(uuid, row, state)
        return moved[0] if moved else None

    @staticmethod
    def _move(uuid: str, row: dict[str, Any], state: str) -> list[Change]:
        row["st"] = state
        if state in _GONE and row.get("told") != state:
            row["told"] = state
            return [Change(uuid, state)]
        if state in ("ok", "suspended") and row.pop("told", None):
            return [Change(uuid, "ok")]
        return []


def _without_values(at: int, uuid: str, row: Mapping[str, Any], state: str) -> Gpu:
    return Gpu(i=at, u=uuid, name=row["name"], st=state, mem_tot=row["mem_tot"], pci=row["pci"])


def _state_of_unseen(host_state: str, hung: bool) -> str:
    if host_state == "ok":
        return "hung" if hung else "missing"
    if host_state == "hung":
        return "hung" if hung else "unknown"
    return "suspended" if host_state == "suspended" else "unknown"
