"""What stands in a `host.sample` and in the facts of `host.registered`. [S]

A sample is a map with short keys; whoever reads one ignores keys it does not know. Units are SI base units or the milli
unit named in the key. None always means "not available here"; a number is never made up, and a missing key reads as None.
Integers carry what a rival would round: CPU in ‰, temperature in m°C, power in mW. Sample time is the event's time.

::

    sample   mono_ns   int    monotonic clock of the host when the sample was taken
             boot      str    boot id of the kernel, None where there is none
             int_ms    int    interval the agent aims at
             dur_us    int    how long taking the sample took
             gpu_state str    see GpuSupport
             cpu, mem, net, disk, temp, gpu, proc, procs_err: below; a tier that was not due is left out
    cpu      n int logical CPUs · tot_pm int ‰ busy · util_pct [int | None] per core · load [float ×3] · iowait_pm int
    mem      tot, used, avail, swap_tot, swap_used   bytes
    net      [{if str, rx int, tx int}]              byte counters since boot
    disk     [{mnt str, tot int, used int}]          bytes
    temp_mC  {label: int}
    gpu      one map a GPU or MIG instance, in index order:
             i int index · u str UUID · name str · st str see GpuState · err {call: code}
             util_pct, mutil_pct int · mem_tot, mem_used, mem_rsv int bytes · t_mC, tmem_mC int · p_mW int · p_lim_mW int
             e_mJ int counter · sm_MHz, mem_MHz int · ev int bit mask of clock event reasons · fan_pct [int] · pst int
             enc_pct, dec_pct int · parent str UUID of the GPU that a MIG instance is on
    proc     [{g int GPU index, pid int, t0_ms int create time, name str, uid int, user str, mem int bytes, sm_pct int,
               cpu_pm int, rss int bytes, type "C" | "G" | "CG", cmd str, orphan bool}]
    procs_err  {uuid: code} GPUs whose process list could not be read: an empty list there means "unknown"

    facts    agent str version · os, kernel, cpu_model str · cores, ram int (bytes) · driver, cuda, nvml str ·
             driver_module str · simulated bool · interval_ms int · gpus [{i, u, name, serial, pci, mem_tot, p_lim_mW,
             t_slow_mC, t_shut_mC, mig}] · tags {str: str}
"""

from typing import Any, Final, TypeAlias, TypedDict

__all__ = ["GPU_STATES", "GPU_SUPPORT", "Cpu", "Facts", "Gpu", "Memory", "Process", "Sample"]

GPU_SUPPORT: Final = ("ok", "no_library", "no_driver", "driver_mismatch", "no_gpu", "no_permission", "hung", "unknown")
"""`gpu_state` of a sample: whether GPUs can be read on the host at all. no_gpu = the driver answers and has no GPU."""

GPU_STATES: Final = ("ok", "lost", "hung", "missing", "suspended", "unknown")
"""`st` of one GPU."""


class Cpu(TypedDict, total=False):
    n: int
    tot_pm: int | None
    util_pct: list[int | None] | None
    load: list[float] | None
    iowait_pm: int | None


class Memory(TypedDict, total=False):
    tot: int
    used: int
    avail: int
    swap_tot: int
    swap_used: int


class Gpu(TypedDict, total=False):
    i: int
    u: str
    name: str
    st: str
    err: dict[str, int]
    util_pct: int | None
    mutil_pct: int | None
    mem_tot: int | None
    mem_used: int | None
    mem_rsv: int | None
    t_mC: int | None
    tmem_mC: int | None
    p_mW: int | None
    p_lim_mW: int | None
    e_mJ: int | None
    sm_MHz: int | None
    mem_MHz: int | None
    ev: int | None
    fan_pct: list[int] | None
    pst: int | None
    enc_pct: int | None
    dec_pct: int | None
    parent: str | None


class Process(TypedDict, total=False):
    g: int
    pid: int
    t0_ms: int | None
    name: str | None
    uid: int | None
    user: str | None
    mem: int | None
    sm_pct: int | None
    cpu_pm: int | None
    rss: int | None
    type: str
    cmd: str | None
    orphan: bool


class Sample(TypedDict, total=False):
    mono_ns: int
    boot: str | None
    int_ms: int
    dur_us: int
    gpu_state: str
    cpu: Cpu
    mem: Memory
    net: list[dict[str, Any]]
    disk: list[dict[str, Any]]
    temp_mC: dict[str, int]
    gpu: list[Gpu]
    proc: list[Process]
    procs_err: dict[str, int]


Facts: TypeAlias = dict[str, Any]
"""Facts of `host.registered`: fixed until the host says otherwise."""
