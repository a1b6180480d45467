"""Memory that no living process accounts for."""

from dimint.producers.orphans import unaccounted
from dimint.producers.sample import Assembler, Fast
from dimint.sample import Gpu, Process

GIB = 1 << 30


def gpu(index: int, used: int | None) -> Gpu:
    """An entry of a GPU that answers."""
    return {"i": index, "u": f"GPU-{index}", "st": "ok", "mem_used": used}


def row(index: int, memory: int | None, *, orphan: bool = False) -> Process:
    """A process row."""
    found: Process = {"g": index, "pid": 1, "mem": memory}
    return {**found, "orphan": True} if orphan else found


def test_what_belongs_to_nobody() -> None:
    """Used memory minus that of all processes, and what pids without a process hold; sums with an unknown part are out."""
    gpus = [gpu(0, 10 * GIB), gpu(1, 5 * GIB), gpu(2, GIB), gpu(3, GIB), gpu(4, None), gpu(5, GIB)]
    rows = [row(0, 6 * GIB), row(0, 3 * GIB, orphan=True), row(1, None), row(3, None, orphan=True), row(5, 2 * GIB)]
    assert unaccounted(gpus, rows, {"GPU-2"}) == {
        "GPU-0": {"mem_orphan": 3 * GIB, "mem_other": GIB},
        "GPU-1": {"mem_orphan": 0},
        "GPU-3": {},
        "GPU-4": {"mem_orphan": 0},
        "GPU-5": {"mem_orphan": 0, "mem_other": 0},
    }


def test_a_gpu_in_parts_has_none_of_its_own() -> None:
    """Processes belong to MIG instances, so only these are summed; a GPU that does not answer has nothing."""
    parts: list[Gpu] = [gpu(0, 4 * GIB), {**gpu(1, 3 * GIB), "parent": "GPU-0"}, {**gpu(2, GIB), "st": "lost"}]
    assert unaccounted(parts, [row(1, GIB)], ()) == {"GPU-1": {"mem_orphan": 0, "mem_other": 2 * GIB}}


def test_samples_carry_it_with_the_process_list() -> None:
    """It stands in every sample until the next list; an idle GPU keeps what the driver itself takes."""
    assembler = Assembler(interval_ms=2000, boot=None)
    assembler.processes([row(0, GIB)], {}, [gpu(0, 3 * GIB)], mono_ns=0)
    sample = assembler.build(Fast(None, None, None, "ok", [gpu(0, 9 * GIB)]), mono_ns=2_000_000_000, dur_us=1)
    assert (sample["gpu"][0]["mem_other"], sample["proc_age_ms"]) == (2 * GIB, 2000)
    lost = assembler.build(Fast(None, None, None, "ok", [{**gpu(0, None), "st": "lost"}]), mono_ns=3, dur_us=1)
    assert "mem_other" not in lost["gpu"][0]
