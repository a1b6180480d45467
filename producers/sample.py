"""Puts readings of different age together into complete samples (dimint/sample.py says what stands in one). [S]"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from dimint.producers.orphans import unaccounted
from dimint.sample import Cpu, Disk, Gpu, Memory, Net, Process, Sample, SpoolState

__all__ = ["PROCESS_ROWS_MAX", "Assembler", "Fast"]

PROCESS_ROWS_MAX: Final = 1000
"""Most process rows of one sample, the biggest ones: a sample must stay far below SAMPLE_MAX_BYTES."""


class Fast(NamedTuple):
    """What is read at every tick. `gpus` is None if nothing is known of any, `spool` if nothing is published.

    `answered` is whether the driver answered at this tick; if not, `gpus` are the ones that there were.
    """

    cpu: Cpu | None
    memory: Memory | None
    network: list[Net] | None
    gpu_state: str
    gpus: list[Gpu] | None
    spool: SpoolState | None = None
    answered: bool = True


class Assembler:
    """Keeps what is read rarely and makes samples. Times are the host's monotonic clock in ns.

    >>> assembler = Assembler(interval_ms=2000, boot=None)
    >>> assembler.slow(disks=[], temperatures=None, mono_ns=0)
    >>> sample = assembler.build(Fast(None, None, None, "no_library", []), mono_ns=5_000_000_000, dur_us=40)
    >>> sample["disk"], sample["slow_age_ms"], "temp_mC" in sample
    ([], 5000, False)
    """

    def __init__(self, *, interval_ms: int, boot: str | None) -> None:
        self._interval_ms, self._boot = interval_ms, boot
        self._slow: Sample = {}
        self._slow_ns = 0
        self._processes: Sample = {}
        self._processes_ns = 0
        self._tier_us: dict[str, int] = {}
        self._unaccounted: dict[str, Gpu] = {}

    def slow(self, *, disks: list[Disk] | None, temperatures: dict[str, int] | None, mono_ns: int) -> None:
        """Keep a reading of the slow tier."""
        self._slow, self._slow_ns = {}, mono_ns
        if disks is not None:
            self._slow["disk"] = disks
        if temperatures is not None:
            self._slow["temp_mC"] = temperatures

    def processes(
        self, rows: Sequence[Process], failed: Mapping[str, int], gpus: Sequence[Mapping[str, Any]], mono_ns: int
    ) -> None:
        """Keep a reading of the processes tier; `gpus` are the entries read with it."""
        self._unaccounted = unaccounted(gpus, rows, failed)
        kept = list(rows)
        if len(kept) > PROCESS_ROWS_MAX:
            kept = sorted(kept, key=lambda row: -(row.get("mem") or 0))[:PROCESS_ROWS_MAX]
        self._processes, self._processes_ns = {"proc": kept}, mono_ns
        if len(kept) < len(rows):
            self._processes["proc_more"] = len(rows) - len(kept)
        if failed:
            self._processes["procs_err"] = dict(failed)

    def took(self, tier: str, seconds: float) -> None:
        """Keep what reading a tier took."""
        self._tier_us[tier] = round(seconds * 1e6)

    def build(self, fast: Fast, *, mono_ns: int, dur_us: int, skipped: Sequence[str] = ()) -> Sample:
        """The sample of one tick. Process rows are carried only while the driver answers."""
        sample: Sample = {
            "mono_ns": mono_ns,
            "boot": self._boot,
            "int_ms": self._interval_ms,
            "dur_us": dur_us,
            "gpu_state": fast.gpu_state,
        }
        if skipped:
            sample["skipped"] = list(skipped)
        if self._tier_us:
            sample["tier_us"] = dict(self._tier_us)
        if fast.spool is not None:
            sample["spool"] = fast.spool
        if fast.cpu is not None:
            sample["cpu"] = fast.cpu
        if fast.memory is not None:
            sample["mem"] = fast.memory
        if fast.network is not None:
            sample["net"] = fast.network
        if self._slow:
            sample |= self._slow
            sample["slow_age_ms"] = (mono_ns - self._slow_ns) // 1_000_000
        if fast.gpus is not None:
            sample["gpu"] = fast.gpus
            for gpu in fast.gpus:
                if gpu["st"] == "ok":
                    gpu.update(self._unaccounted.get(gpu["u"], {}))
            if self._processes and fast.gpu_state == "ok" and fast.answered:
                sample |= self._processes
                sample["proc_age_ms"] = (mono_ns - self._processes_ns) // 1_000_000
        return sample
