"""The metric families of `/metrics`: names, units, help, and where their numbers stand in a sample. [S]

Names follow https://prometheus.io/docs/practices/naming/: one prefix, base units, `_total` for counters, `_info` for facts.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["FAMILIES", "Family", "Number"]


class Family(NamedTuple):
    """One metric family. `always` families are shown for stale hosts too."""

    name: str
    type: str
    help: str
    always: bool = False


class Number(NamedTuple):
    """One number of a map: where it stands, what it is multiplied by, and the labels that tell it from others, as written."""

    family: Family
    key: str
    scale: float = 1
    suffix: str = ""


MILLI: Final = 0.001
PERCENT: Final = 0.01
_POWER_HELP: Final = "Power drawn, the mean of about a second or of this instant; some GPUs do not tell which."


def _gauge(name: str, help_: str, key: str, scale: float = 1, **labels: str) -> Number:
    return Number(Family(name, "gauge", help_), key, scale, _suffix(labels))


def _counter(name: str, help_: str, key: str, scale: float = 1, **labels: str) -> Number:
    return Number(Family(name, "counter", help_), key, scale, _suffix(labels))


def _suffix(labels: Mapping[str, str]) -> str:
    return "".join(f',{name}="{text}"' for name, text in labels.items())


HOST_UP: Final = Family("dimint_host_up", "gauge", "1 while the host reports, 0 once it is down or was not heard yet.", True)
HOST_LAST: Final = Family(
    "dimint_host_last_sample_timestamp_seconds", "gauge", "When the newest sample was taken, by the host's clock.", True
)
HOST_INFO: Final = Family("dimint_host_info", "gauge", "What the host says of itself; always 1.", True)
HOST_SKEW: Final = Family(
    "dimint_host_clock_skew_seconds", "gauge", "Host's clock minus the log's when the newest sample arrived; its way counts too."
)
NET_IN: Final = Family("dimint_host_network_receive_bytes_total", "counter", "Bytes received since the host's boot.")
NET_OUT: Final = Family("dimint_host_network_transmit_bytes_total", "counter", "Bytes sent since the host's boot.")
DISK_USED: Final = Family("dimint_host_filesystem_used_bytes", "gauge", "Bytes in use on a local file system.")
DISK_SIZE: Final = Family("dimint_host_filesystem_size_bytes", "gauge", "Size of a local file system.")
HOST_TEMPERATURE: Final = Family("dimint_host_temperature_celsius", "gauge", "Sensors of the host.")
COLLECT: Final = Family("dimint_agent_collect_duration_seconds", "gauge", "How long taking the newest sample took, by tier.")
SPOOL: Final = Family("dimint_host_spool_bytes", "gauge", "What waits on the agent's disk.")
SPOOL_MAX: Final = Family("dimint_host_spool_max_bytes", "gauge", "What may wait on the agent's disk.")
INTERVAL: Final = Family("dimint_agent_interval_seconds", "gauge", "Time between two samples that the agent aims at.")
ERRORS: Final = Family(
    "dimint_agent_collect_errors_total", "counter", "NVML calls about a GPU that failed since the agent's start, by NVML's code."
)
GPU_INFO: Final = Family("dimint_gpu_info", "gauge", "What a GPU or MIG instance is; always 1.")
GPU_UP: Final = Family("dimint_gpu_up", "gauge", "1 while the GPU answers.")
GPU_STATE: Final = Family("dimint_gpu_state", "gauge", "1 for the state that the GPU is in, 0 for the others.")
FAN: Final = Family("dimint_gpu_fan_speed_ratio", "gauge", "Intended speed of a fan; may be above 1.")
PROCESSES: Final = Family("dimint_gpu_processes", "gauge", "Processes that use the GPU.")
COLLECTED: Final = Family(
    "dimint_agent_last_collect_success", "gauge", "1 if the newest sample has all that could be read, 0 if a call failed."
)
XIDS: Final = Family("dimint_gpu_xid_errors_total", "counter", "Errors that the driver reported, by NVIDIA's number.", True)
XID_LAST: Final = Family("dimint_gpu_xid_last_timestamp_seconds", "gauge", "When it reported this error last.", True)
USER_TIME: Final = Family(
    "dimint_user_gpu_seconds_total",
    "counter",
    "GPU time of a user since the host's first sample; a GPU that several hold counts whole for each.",
    True,
)
LAG: Final = Family(
    "dimint_consumer_lag_events",
    "gauge",
    "Records of the status topic, of one event or more each, that the status tables have not read yet.",
    True,
)
STORE_UP: Final = Family("dimint_store_up", "gauge", "1 if an overlord answers for the key-value store, 0 if none does.", True)
OVERLORD_UP: Final = Family("dimint_overlord_up", "gauge", "1 for each overlord that is registered.", True)
NODE_UP: Final = Family("dimint_node_up", "gauge", "1 while a node is connected to the overlord that was asked.", True)
NODE_KEYS: Final = Family("dimint_node_keys", "gauge", "Keys in a node's store.", True)
SERVED: Final = Family(
    "dimint_store_partition_served", "gauge", "1 if a partition of the store has a master and nothing is wrong with it.", True
)
STORE_LAG: Final = Family(
    "dimint_store_lag_events", "gauge", "Records of a partition that its replica furthest behind has not applied yet.", True
)
USER_MEMORY: Final = Family("dimint_gpu_user_memory_used_bytes", "gauge", "Memory of the GPU that a user's processes hold.")

CPU: Final = (
    _gauge("dimint_host_cpu_utilization_ratio", "Share of time that the CPUs were busy.", "tot_pm", MILLI),
    _gauge("dimint_host_cpu_iowait_ratio", "Share of time that the CPUs waited for disks.", "iowait_pm", MILLI),
    _gauge("dimint_host_cpus", "Logical CPUs.", "n"),
)
LOADS: Final = tuple(Family(f"dimint_host_load{minutes}", "gauge", f"Load average over {minutes} min.") for minutes in (1, 5, 15))
MEMORY: Final = (
    _gauge("dimint_host_memory_used_bytes", "Memory in use.", "used"),
    _gauge("dimint_host_memory_available_bytes", "Memory that programs can still get.", "avail"),
    _gauge("dimint_host_memory_total_bytes", "Memory of the host.", "tot"),
    _gauge("dimint_host_swap_used_bytes", "Swap in use.", "swap_used"),
    _gauge("dimint_host_swap_total_bytes", "Swap of the host.", "swap_tot"),
)
GPU: Final = (
    _gauge("dimint_gpu_utilization_ratio", "Share of time that kernels ran.", "util_pct", PERCENT),
    _gauge("dimint_gpu_memory_utilization_ratio", "Share of time that the memory controller was busy.", "mutil_pct", PERCENT),
    _gauge("dimint_gpu_memory_used_bytes", "Memory in use, without what the driver reserves.", "mem_used"),
    _gauge("dimint_gpu_memory_reserved_bytes", "Memory that the driver keeps for itself.", "mem_rsv"),
    _gauge("dimint_gpu_memory_total_bytes", "Memory of the GPU.", "mem_tot"),
    _gauge("dimint_gpu_temperature_celsius", "Temperature.", "t_mC", MILLI, sensor="core"),
    _gauge("dimint_gpu_temperature_celsius", "Temperature.", "tmem_mC", MILLI, sensor="memory"),
    _gauge("dimint_gpu_temperature_margin_celsius", "How much hotter it may get before it slows down.", "t_margin_mC", MILLI),
    _gauge("dimint_gpu_power_watts", _POWER_HELP, "p_inst_mW", MILLI, kind="instant"),
    _gauge("dimint_gpu_power_limit_watts", "Enforced power limit.", "p_lim_mW", MILLI),
    _counter("dimint_gpu_energy_joules_total", "Energy used since the driver was loaded.", "e_mJ", MILLI),
    _gauge("dimint_gpu_clock_hertz", "Present clock.", "sm_MHz", 1e6, clock="sm"),
    _gauge("dimint_gpu_clock_hertz", "Present clock.", "mem_MHz", 1e6, clock="memory"),
    _gauge("dimint_gpu_encoder_utilization_ratio", "Share of time that the encoder was busy.", "enc_pct", PERCENT),
    _gauge("dimint_gpu_decoder_utilization_ratio", "Share of time that the decoder was busy.", "dec_pct", PERCENT),
    _gauge("dimint_gpu_performance_state", "Performance state, 0 is the fastest.", "pst"),
    _counter("dimint_gpu_pcie_bytes_total", "Bytes through PCIe.", "pcie_rx", direction="receive"),
    _counter("dimint_gpu_pcie_bytes_total", "Bytes through PCIe.", "pcie_tx", direction="transmit"),
    _counter("dimint_gpu_nvlink_bytes_total", "Bytes over all NVLinks.", "nvl_rx", direction="receive"),
    _counter("dimint_gpu_nvlink_bytes_total", "Bytes over all NVLinks.", "nvl_tx", direction="transmit"),
    _gauge("dimint_gpu_recovery_action", "What the driver asks for: 0 nothing, 1 reset, 2 reboot, 3 drain, 4 drain and reset.",
           "rec"),
    _gauge("dimint_gpu_orphan_memory_bytes", "Memory of the GPU held under pids that do not exist.", "mem_orphan"),
    _gauge("dimint_gpu_other_memory_bytes", "Memory in use that belongs to no known process.", "mem_other"),
)  # fmt: skip
ECC: Final = tuple(
    _counter("dimint_gpu_ecc_errors_total", "Memory errors, since the driver's start or for life.", key, type=kind, scope=scope)
    for key, kind, scope in (("vc", "corrected", "volatile"), ("vu", "uncorrected", "volatile"),
                             ("ac", "corrected", "aggregate"), ("au", "uncorrected", "aggregate"))
)  # fmt: skip
REMAP: Final = (
    _gauge("dimint_gpu_remapped_rows", "Rows of memory that were replaced.", "c", cause="corrected"),
    _gauge("dimint_gpu_remapped_rows", "Rows of memory that were replaced.", "u", cause="uncorrected"),
)
REMAP_FLAGS: Final = (
    (Family("dimint_gpu_row_remap_pending", "gauge", "1 while rows wait for a reset to be replaced."), "pend"),
    (Family("dimint_gpu_row_remap_failure", "gauge", "1 if replacing a row has failed."), "fail"),
)
THROTTLE: Final = Family("dimint_gpu_throttle_seconds_total", "counter", "Time that clocks were held down, by reason.")
EVENT: Final = Family("dimint_gpu_clocks_event_active", "gauge", "1 while clocks are held down for this reason.")
POWER: Final = Family("dimint_gpu_power_watts", "gauge", _POWER_HELP)
EVENT_BITS: Final = {
    0x1: "gpu_idle", 0x2: "applications_clocks", 0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost",
    0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown", 0x100: "display_clocks",
}  # fmt: skip
"""Bits of `ev`: nvmlClocksEventReasons of nvml.h."""
LIMITS: Final = (
    _gauge("dimint_gpu_temperature_threshold_celsius", "Where the GPU slows down or shuts down.", "t_slow_mC", MILLI,
           kind="slowdown"),
    _gauge("dimint_gpu_temperature_threshold_celsius", "Where the GPU slows down or shuts down.", "t_shut_mC", MILLI,
           kind="shutdown"),
)  # fmt: skip

FAMILIES: Final[tuple[Family, ...]] = tuple(
    dict.fromkeys(
        (
            HOST_UP, HOST_LAST, HOST_INFO, HOST_SKEW, *(row.family for row in CPU), *LOADS,
            *(row.family for row in MEMORY), NET_IN, NET_OUT, DISK_USED, DISK_SIZE, HOST_TEMPERATURE,
            COLLECT, COLLECTED, INTERVAL, SPOOL, SPOOL_MAX, ERRORS, GPU_INFO, GPU_UP, GPU_STATE, POWER,
            *(row.family for row in (*GPU, *LIMITS, *ECC, *REMAP)), FAN, *(family for family, _ in REMAP_FLAGS),
            THROTTLE, EVENT, XIDS, XID_LAST, PROCESSES, USER_MEMORY, USER_TIME, LAG,
            STORE_UP, OVERLORD_UP, NODE_UP, NODE_KEYS, SERVED, STORE_LAG,
        )
    )
)  # fmt: skip
"""Every family, in the order of the text."""
