"""Memory of GPUs that no living process accounts for. [S]"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dimint.sample import Gpu, Process

__all__ = ["unaccounted"]


def unaccounted(gpus: Sequence[Mapping[str, Any]], rows: Sequence[Process], failed: Collection[str]) -> dict[str, Gpu]:
    """UUID → `mem_orphan` and `mem_other` of dimint/sample.py, from entries and process rows of one reading.

    A GPU whose list could not be read (`failed`), or that is split into MIG instances, has neither, and a sum with an
    unknown part is left out. `mem_other` is what the driver itself takes, and what a dead process left behind.
    """
    parents = {gpu.get("parent") for gpu in gpus}
    found: dict[str, Gpu] = {}
    for gpu in gpus:
        uuid = gpu.get("u")
        if not uuid or uuid in failed or uuid in parents or gpu["st"] != "ok":
            continue
        mine = [row for row in rows if row["g"] == gpu["i"]]
        orphans = [row.get("mem") for row in mine if row.get("orphan")]
        everyone = [row.get("mem") for row in mine]
        found[uuid] = {}
        if None not in orphans:
            found[uuid]["mem_orphan"] = sum(memory or 0 for memory in orphans)
        if gpu.get("mem_used") is not None and None not in everyone:
            found[uuid]["mem_other"] = max(0, gpu["mem_used"] - sum(memory or 0 for memory in everyone))
    return found
