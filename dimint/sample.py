"""What stands in a `host.sample` and in the facts of `host.registered`. [S]

A sample is a map with short keys; whoever reads one ignores keys it does not know. Units are SI base units or the milli
unit named in the key. None always means "not available here"; a number is never made up, and a missing key reads as None.
Integers carry what a rival would round: CPU in ‰, temperature in m°C, power in mW. Sample time is the event's time.

Every sample is complete: what is read less often than samples are taken (process lists, disks, fans) is carried along
from its last reading, and `proc_age_ms` and `slow_age_ms` say how old that is. A part that could not be read at all is
left out (`gpu` while the driver has never answered), so an empty list always means that there is nothing. While the driver
takes longer than a sample may wait, the GPUs that there were are listed with the state unknown and without numbers.

::

    sample   mono_ns   int    monotonic clock of the host when the sample was taken
             boot      str    boot id of the kernel, None where there is none
             int_ms    int    interval the agent aims at
             dur_us    int    how long taking the sample took
             gpu_state str    see GPU_SUPPORT
             skipped   [str]  tiers that were due and left out because taking them costs too much; absent = none
             tier_us   {tier: int}   what the last reading of each tier took: "fast", "processes", "slow"
             late      bool   it waited on the agent's disk: others may have looked without it; absent = False
             spool     {events int, bytes int, max int}   what waits on the agent's disk, and how many bytes may
             cpu, mem, net, disk, temp_mC, gpu, proc, procs_err: below
             proc_age_ms, slow_age_ms   int    age of the process list (and of mem_orphan, mem_other), and of disk,
                              temp_mC and whatever of a GPU is marked *
    cpu      n int logical CPUs · tot_pm int ‰ busy · util_pct [int | None] per core · load [float ×3] · iowait_pm int
             ‰ and % are of the time since the previous sample: None in the first one
    mem      tot, used, avail, swap_tot, swap_used   bytes
    net      [{if str, rx int, tx int}]              byte counters since boot; loopback and container ends left out
    disk     [{mnt str, tot int, used int}]          bytes; local file systems only
    temp_mC  {label: int}
    gpu      one map a GPU or MIG instance: GPUs in the driver's order, then MIG instances, then missing GPUs
             i int place in this list · u str UUID · name str · st str see GPU_STATES
             err {call: code} NVML calls whose values are missing, and their codes, without "not supported" · absent = none
             errs {call: {code: int}} how often each call has failed since the agent's start, by code; absent = never
             util_pct, mutil_pct int % of time busy, memory controller busy (None on MIG)
             mem_tot, mem_used, mem_rsv int bytes; rsv is what the driver keeps for itself, not part of used
             mem_free int bytes left, as the sender counts; absent = tot − used
             unified bool the GPU has no memory of its own (the host's memory is shared); absent = False
             t_mC int · tmem_mC* int memory · t_margin_mC int left until it slows down; absent = see t_slow_mC of the facts
             p_lim_mW* int enforced limit · e_mJ int counter, restarts with the driver
             p_mW int drawn, the mean of about a second where the GPU keeps one (facts: p_kind) · p_inst_mW int this instant
             sm_MHz, mem_MHz int · ev int bit mask of clock event reasons · fan_pct* [int] intended speed, may exceed 100
             pst* int performance state, 0 = fastest · enc_pct, dec_pct int · pci str bus id
             thr_ns* {reason: int} time that clocks were held down, counters, restart with the driver; see THROTTLE_REASONS
             pcie_rx*, pcie_tx* int bytes through PCIe, counters · nvl_rx*, nvl_tx* int over all NVLinks; they may wrap
             ecc* {vc, vu, ac, au int} corrected and uncorrected errors, volatile (since the driver was loaded) and
                  aggregate (for life) · absent = no ECC memory, or it is switched off
             remap* {c, u int, pend, fail bool} rows of memory replaced after corrected and after uncorrected errors,
                  whether some wait for a reset, whether replacing one failed · rec* int see RECOVERY_ACTIONS
             mem_orphan int bytes held by pids that do not exist · mem_other int bytes in use that belong to no process of
                  the list: used − Σ mem; absent = some process's memory, or the list, could not be read
             at str when the sender read this GPU, in its own words; absent = the sample's time
             parent str UUID of the GPU that a MIG instance is on · gi, ci int GPU and compute instance · profile str
                  "1g.10gb"
    proc     [{g int `i` of the GPU or MIG instance, pid int, t0_ms int create time (UTC), name str path of the program or
               its short name, uid int, user str, mem int bytes on that GPU, sm_pct int, cpu_pm int ‰ of one core,
               rss int bytes, type "C" compute | "G" graphics | "CG" both, cmd str,
               orphan bool the GPU names a pid that does not exist, foreign bool it is in another pid namespace,
               seen_ms int when the agent first saw it on the GPU (UTC), where t0_ms cannot be known,
               ctr str id of its container, rt str its runtime ("docker", "containerd", "cri-o", "podman", "lxc" …),
               pod str name of its Kubernetes pod, or the pod's uid where the host does not tell the name, ns str namespace,
               job str id of its Slurm job}]  absent = not in one
             one row per (GPU, pid). cmd is the program's base name and its first plain argument, because the rest holds
             passwords; the whole line only where the agent's settings ask for it
    proc_more  int rows that were left out, the smallest ones, because there are too many; absent = none
    procs_err  {uuid: code} GPUs whose process list could not be read: an empty list there means "unknown"

    facts    agent str version · os, kernel, cpu_model str · cores, ram int (bytes) · driver, cuda, nvml str ·
             driver_module str version of the loaded kernel module · simulated bool · interval_ms int ·
             gpus [{i, u, name, serial, pci, minor int number of /dev/nvidiaN, mem_tot, p_lim_mW, t_slow_mC, t_shut_mC,
             sm_max_MHz, mem_max_MHz, mig bool, p_kind str "average" | "instant" what p_mW is, persistence bool,
             unsupported [str] calls that this GPU or driver does not have}] · tags {str: str} of the agent's settings
"""

from typing import Any, Final, TypeAlias, TypedDict

__all__ = [
    "GPU_STATES",
    "GPU_SUPPORT",
    "NOTHING_WRONG",
    "RECOVERY_ACTIONS",
    "THROTTLE_REASONS",
    "Cpu",
    "Disk",
    "Ecc",
    "Facts",
    "Gpu",
    "Memory",
    "Net",
    "Process",
    "Remap",
    "Sample",
    "SpoolState",
]

GPU_SUPPORT: Final = (
    "ok", "no_library", "no_driver", "driver_mismatch", "no_gpu", "no_permission", "hung", "unknown", "starting",
)  # fmt: skip
"""`gpu_state` of a sample: whether GPUs can be read on the host at all.

no_library       NVML is not installed (no driver, or a container without it)
no_driver        the library is there, the kernel module is not loaded
driver_mismatch  library and kernel module have different versions: the driver was upgraded without a reboot
no_gpu           the driver answers and has no GPU
no_permission    this user may not ask the driver
hung             a call into the driver does not return
unknown          anything else
starting         the first seconds after the agent's start: the driver has not answered yet
"""

NOTHING_WRONG: Final = frozenset({"ok", "no_library", "no_gpu", "starting"})
"""Values of `gpu_state` that nobody has to do anything about."""

GPU_STATES: Final = ("ok", "lost", "hung", "missing", "suspended", "unknown")
"""`st` of one GPU.

ok         it answers
lost       the driver says that it is off the bus or must be reset
hung       a call about it did not return; it is left alone for a while and then tried again
missing    it was there before (also before a reboot) and the driver does not list it any more
suspended  it sleeps and is not woken up by being watched
unknown    the driver gives no reason, or the driver itself cannot be asked (`gpu_state` says why)
"""


THROTTLE_REASONS: Final = (
    "sw_power_cap",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "thermal",
    "sync_boost",
    "board_limit",
    "low_utilization",
    "reliability",
)
"""Keys of `thr_ns`. sw_power_cap is normal under load: the GPU keeps its power limit.

sw_thermal, hw_thermal, hw_power_brake   slowed by the driver, by the GPU itself, by the power supply (newer drivers)
thermal                                  too hot, whoever slowed it (older drivers)
"""

RECOVERY_ACTIONS: Final = ("none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset")
"""What `rec` asks the administrator for, by number (NVML's nvmlDeviceGpuRecoveryAction_t; newer drivers know more)."""


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
    swap_tot: int | None
    swap_used: int | None


Net = TypedDict("Net", {"if": str, "rx": int, "tx": int})


class Disk(TypedDict):
    mnt: str
    tot: int
    used: int


class Ecc(TypedDict):
    vc: int | None
    vu: int | None
    ac: int | None
    au: int | None


class Remap(TypedDict):
    c: int | None
    u: int | None
    pend: bool | None
    fail: bool | None


class SpoolState(TypedDict):
    events: int
    bytes: int
    max: int


class Gpu(TypedDict, total=False):
    i: int
    u: str
    name: str | None
    st: str
    err: dict[str, int]
    errs: dict[str, dict[str, int]]
    util_pct: int | None
    mutil_pct: int | None
    mem_tot: int | None
    mem_used: int | None
    mem_rsv: int | None
    mem_free: int | None
    unified: bool
    t_mC: int | None
    tmem_mC: int | None
    t_margin_mC: int
    p_mW: int | None
    p_inst_mW: int | None
    p_lim_mW: int | None
    e_mJ: int | None
    sm_MHz: int | None
    mem_MHz: int | None
    ev: int | None
    fan_pct: list[int] | None
    pst: int | None
    enc_pct: int | None
    dec_pct: int | None
    pci: str | None
    thr_ns: dict[str, int]
    pcie_rx: int | None
    pcie_tx: int | None
    nvl_rx: int | None
    nvl_tx: int | None
    ecc: Ecc
    remap: Remap
    rec: int | None
    mem_orphan: int
    mem_other: int
    parent: str | None
    gi: int | None
    ci: int | None
    profile: str | None
    at: str


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
    foreign: bool
    seen_ms: int
    ctr: str
    rt: str
    pod: str
    ns: str
    job: str


class Sample(TypedDict, total=False):
    mono_ns: int
    boot: str | None
    int_ms: int
    dur_us: int
    gpu_state: str
    skipped: list[str]
    tier_us: dict[str, int]
    late: bool
    spool: SpoolState
    cpu: Cpu
    mem: Memory
    net: list[Net]
    disk: list[Disk]
    temp_mC: dict[str, int]
    gpu: list[Gpu]
    proc: list[Process]
    proc_more: int
    procs_err: dict[str, int]
    proc_age_ms: int
    slow_age_ms: int


Facts: TypeAlias = dict[str, Any]
"""Facts of `host.registered`: fixed until the host says otherwise."""
