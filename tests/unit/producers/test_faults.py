"""Every fault that drivers are known for, and the sample that it must end in: never a dead agent, never a false 0.

The faults of one GPU all stand on one host, each on a GPU of its own, so that what they do to the others shows too.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from dimint.producers.gpu_watch import GpuWatch
from dimint.producers.kernel_log import KernelLog
from dimint.producers.processes import Processes, in_first_pid_namespace
from dimint.producers.schedule import PROCESSES, SLOW, Due, Schedule
from dimint.producers.sources import HostIdentity, ThisHost
from dimint.sample import Gpu, Sample
from tests.support.nvml import FakeDriver, RealClock, build_library, device_calls
from tests.support.sample_check import problems_of

EVERYTHING = Due(frozenset({PROCESSES, SLOW}), ())
HOST = "0" * 32


class Agent:
    """This machine as a source of samples, on a driver that does what a script says."""

    def __init__(self, driver: FakeDriver, folder: Path, **watch: Any) -> None:
        self.clock = RealClock()
        self.watch = GpuWatch(self.clock, env=driver.environment, sysfs=str(folder), **watch)
        self.source = ThisHost(
            HostIdentity(id=HOST, name="here"),
            self.clock,
            Schedule(5.0, 0.0),
            self.watch,
            Processes(self.clock, namespace_is_hosts=True),
            interval_s=5.0,
            kernel_log=KernelLog(folder / "none"),
        )

    def tick(self) -> tuple[Sample, list[list[Any]]]:
        """The next valid sample that tells of GPUs, and what else happened until then."""
        events: list[list[Any]] = []
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            *more, sample = self.source.events(EVERYTHING)
            events += more
            assert problems_of(sample[5]) == []
            if "gpu" in sample[5]:  # on a busy machine the driver's answer may come with a later sample
                return sample[5], events
        raise AssertionError("no sample tells of GPUs")

    def tick_until(self, happened: Callable[[Sample], bool]) -> tuple[Sample, list[list[Any]]]:
        """The first sample of which this is true, and what else happened until then; an answer may be an older one."""
        events: list[list[Any]] = []
        for _ in range(20):
            sample, more = self.tick()
            events += more
            if happened(sample):
                return sample, events
        raise AssertionError(f"the last sample was {sample}")


@contextmanager
def agent_on(driver: FakeDriver, folder: Path, **watch: Any) -> Iterator[Agent]:
    """An agent, closed at the end."""
    agent = Agent(driver, folder, **watch)
    try:
        yield agent
    finally:
        agent.source.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake with the newest symbols."""
    return build_library(tmp_path_factory.mktemp("nvml"))


# --- faults of the whole driver ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (["fault * nvmlInitWithFlags 9"], "no_driver"),
        (["fault * nvmlInitWithFlags 18"], "driver_mismatch"),
        (["fault * nvmlInitWithFlags 4"], "no_permission"),
        (["fault * nvmlInitWithFlags 999"], "unknown"),
        (["fault * nvmlInitWithFlags 12"], "no_library"),
        (["count 0"], "no_gpu"),
        (["fault * nvmlDeviceGetCount_v2 1"], "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_driver_that_cannot_be_asked(library: Path, tmp_path: Path, lines: list[str], state: str) -> None:
    """CPU and memory go on, the state says what is wrong, and no GPU is made up."""
    driver = FakeDriver(library, tmp_path / "script")
    driver.tell(*lines)
    with agent_on(driver, tmp_path) as agent:
        sample, _ = agent.tick()
    assert (sample["gpu_state"], sample["gpu"]) == (state, [])
    assert sample["mem"]["tot"] > 0
    assert "proc" not in sample


def test_a_driver_that_goes_and_comes(library: Path, tmp_path: Path) -> None:
    """Known GPUs stay listed without values while the driver is away; its going and coming are told."""
    driver = FakeDriver(library, tmp_path / "script")
    driver.tell("count 2")
    with agent_on(driver, tmp_path) as agent:
        assert [gpu["st"] for gpu in agent.tick()[0]["gpu"]] == ["ok", "ok"]
        driver.tell("count 2", "fault * nvmlInitWithFlags 18", *(f"fault * {call} 999" for call in device_calls()))
        agent.tick_until(lambda sample: [gpu["st"] for gpu in sample["gpu"]] == ["unknown", "unknown"])
        agent.clock.ahead += 31
        sample, _ = agent.tick_until(lambda sample: sample["gpu_state"] == "driver_mismatch")
        assert [gpu["st"] for gpu in sample["gpu"]] == ["unknown", "unknown"]
        driver.tell("count 1", "driver 580.1")
        agent.clock.ahead += 301
        sample, events = agent.tick_until(lambda sample: sample["gpu_state"] == "ok")
    assert [(gpu["u"], gpu["st"]) for gpu in sample["gpu"]] == [("GPU-0", "ok"), ("GPU-1", "missing")]
    happened = [[event[0], *event[3:]] for event in events]
    assert ["gpu.lost", "GPU-1", "missing"] in happened
    assert ["driver.changed", "570.86.15", "580.1"] in happened


# --- faults of one GPU ------------------------------------------------------------------------------------------------
_NOTHING: Gpu = {}


class Fault(NamedTuple):
    """What the driver does about one GPU ("{}" is its place) and what its entry must be.

    `none` are the keys that lose their value, `values` those that get another one; everything else stays as on a GPU
    that is well.
    """

    name: str
    lines: tuple[str, ...]
    none: str = ""
    values: Gpu = _NOTHING
    err: Mapping[str, int] = MappingProxyType({})
    st: str = "ok"


CALLS = {
    "nvmlDeviceGetUtilizationRates": "util_pct mutil_pct",
    "nvmlDeviceGetEnforcedPowerLimit": "p_lim_mW",
    "nvmlDeviceGetPerformanceState": "pst",
    "nvmlDeviceGetClockInfo": "sm_MHz mem_MHz",
    "nvmlDeviceGetEncoderUtilization": "enc_pct",
    "nvmlDeviceGetDecoderUtilization": "dec_pct",
    "nvmlDeviceGetName": "name",
}
FIELDS = {
    3: "ecc.vc",
    6: "ecc.au",
    82: "tmem_mC",
    138: "nvl_tx",
    139: "nvl_rx",
    143: "remap.u",
    145: "remap.fail",
    186: "p_inst_mW",
    197: "pcie_tx",
    198: "pcie_rx",
    230: "rec",
}
MEMORY = ("fault {} nvmlDeviceGetMemoryInfo_v2 3", "fault {} nvmlDeviceGetMemoryInfo 3")
MEMORY_KEYS = "mem_tot mem_used mem_rsv mem_other"

FAULTS = [
    *(Fault(f"{call} {code}", (f"fault {{}} {call} {code}",), keys) for call, keys in CALLS.items() for code in (3, 13)),
    *(Fault(f"field {field} unknown to the driver", (f"fault {{}} field_{field} 2",), key) for field, key in FIELDS.items()),
    *(Fault(f"field {field} fails", (f"fault {{}} field_{field} 999",), key, err={"": 999}) for field, key in FIELDS.items()),
    *(Fault(f"transient {code}", (f"fault {{}} nvmlDeviceGetClockInfo {code}",), "sm_MHz mem_MHz",
            err={"sm_clock": code, "memory_clock": code}) for code in (10, 17, 19)),
    Fault("memory of the host", MEMORY, MEMORY_KEYS, Gpu(unified=True)),
    Fault("memory not permitted", tuple(line.replace(" 3", " 4") for line in MEMORY), MEMORY_KEYS,
          err={"memory_v2": 4, "memory": 4}),
    Fault("memory of 0 bytes", ("set {} total 0",), MEMORY_KEYS, Gpu(unified=True)),
    Fault("only the old memory call", MEMORY[:1], "mem_rsv"),
    Fault("old temperature call", ("fault {} nvmlDeviceGetTemperatureV 13",)),
    Fault("no temperature", ("fault {} nvmlDeviceGetTemperatureV 3", "fault {} nvmlDeviceGetTemperature 3"), "t_mC"),
    Fault("no threshold", ("fault {} nvmlDeviceGetTemperatureThreshold 3",), values=Gpu(t_margin_mC=51_000)),
    Fault("old reasons call", ("fault {} nvmlDeviceGetCurrentClocksEventReasons 13",)),
    Fault("no reasons", tuple(f"fault {{}} nvmlDeviceGetCurrentClocks{call}Reasons 3" for call in ("Event", "Throttle")), "ev"),
    Fault("passive cooling", ("fault {} nvmlDeviceGetNumFans 3", "fault {} nvmlDeviceGetFanSpeed 3"), "fan_pct"),
    Fault("fan above 100 %", ("set {} fans 1", "set {} fan 120"), values=Gpu(fan_pct=[120])),
    Fault("no mean of power", ("fault {} field_185 3",)),
    Fault("no power", ("fault {} field_185 3", "fault {} field_186 3", "fault {} nvmlDeviceGetPowerUsage 3"), "p_mW p_inst_mW"),
    Fault("no energy", ("fault {} field_83 3", "fault {} nvmlDeviceGetTotalEnergyConsumption 3"), "e_mJ"),
    Fault("no ECC memory", tuple(f"fault {{}} field_{field} 3" for field in (3, 4, 5, 6)), "ecc"),
    Fault("no row remapping", tuple(f"fault {{}} field_{field} 3" for field in (142, 143, 144, 145)), "remap"),
    Fault("no throttle counters", tuple(f"fault {{}} field_{field} 3" for field in (*range(74, 80), 269, 270, 271)), "thr_ns"),
    Fault("a name that is no text", ("set {} name undecodable",), "name", err={"name": 999}),
    Fault("no process lists", tuple(f"fault {{}} nvmlDeviceGet{kind}RunningProcesses_v3 4" for kind in ("Compute", "Graphics")),
          "mem_orphan mem_other"),
    Fault("lost", ("fault {} nvmlDeviceGetUtilizationRates 15",), err={"utilisation": 15}, st="lost"),
    Fault("lost in one of many values", ("fault {} field_198 15",), err={"pcie_rx": 15}, st="lost"),
    Fault("must be reset", ("fault {} nvmlDeviceGetMemoryInfo_v2 16",), err={"memory_v2": 16}, st="lost"),
]  # fmt: skip


class Seen(NamedTuple):
    """The sample of a host with all these faults, and the events that came with it."""

    sample: Sample
    events: list[list[Any]]


@pytest.fixture(scope="module")
def seen(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One sample: GPU 0 is well, the others have a fault each."""
    folder = tmp_path_factory.mktemp("faults")
    driver = FakeDriver(library, folder / "script")
    lines = [line.format(place) for place, fault in enumerate(FAULTS, 1) for line in fault.lines]
    nonzero = ("set * field_82 81", "set * field_230 2", "set * pstate 2", *(f"set * field_{field} 5" for field in (4, 145)))
    driver.tell(f"count {len(FAULTS) + 1}", *lines, *nonzero, "proc * Compute 4194000 4096")
    with agent_on(driver, folder) as agent:
        return Seen(*agent.tick())


def _flat(gpu: Gpu) -> dict[str, Any]:
    """An entry with `ecc`, `remap` and `thr_ns` spread out, without what identifies it and without what is None."""
    found: dict[str, Any] = {}
    for key, value in gpu.items():
        if isinstance(value, dict) and key not in ("err", "errs"):
            found |= {f"{key}.{name}": part for name, part in value.items()}
        elif key not in ("i", "u", "pci", "err", "errs"):
            found[key] = value
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("place", range(1, len(FAULTS) + 1), ids=[fault.name for fault in FAULTS])
def test_a_fault_costs_its_own_values(seen: Seen, place: int) -> None:
    """What a call does not give is missing, its code is told, and every other value is the one of a GPU that is well."""
    fault, gpu, well = FAULTS[place - 1], seen.sample["gpu"][place], _flat(seen.sample["gpu"][0])
    assert (gpu["u"], gpu["st"]) == (f"GPU-{place}", fault.st)
    told = gpu.get("err", {})
    assert told == fault.err if "" not in fault.err else list(told.values()) == [fault.err[""]]
    if fault.st != "ok":
        return
    gone = {key for key in well if any(key == name or key.startswith(f"{name}.") for name in fault.none.split())}
    assert gone or not fault.none
    assert _flat(gpu) == {key: value for key, value in well.items() if key not in gone} | fault.values


def test_failed_calls_are_counted(library: Path, tmp_path: Path) -> None:
    """Each GPU's samples say how often which call has failed, also after the driver was opened anew."""
    driver = FakeDriver(library, tmp_path / "script")
    driver.tell("count 2", "fault 1 nvmlDeviceGetClockInfo 10", "fault 0 nvmlDeviceGetComputeRunningProcesses_v3 4")
    with agent_on(driver, tmp_path) as agent:
        agent.tick()
        driver.tell("count 2", "fault 1 nvmlDeviceGetUtilizationRates 15")
        agent.tick_until(lambda sample: sample["gpu"][1]["st"] == "lost")
        driver.tell("count 2")
        agent.clock.ahead += 31
        sample, _ = agent.tick_until(lambda sample: sample["gpu"][1]["st"] == "ok")
    whole, other = sample["gpu"]
    assert set(whole["errs"]) == {"processes"}
    assert whole["errs"]["processes"]["4"] >= 1
    assert other["errs"].keys() == {"sm_clock", "memory_clock", "utilisation"}
    assert other["errs"]["sm_clock"] == other["errs"]["memory_clock"]
    assert other["errs"]["utilisation"] == {"15": 1}, "a GPU that is lost is not asked again and again"
    assert "err" not in other


def test_a_driver_that_is_slow_hides_no_gpu(library: Path, tmp_path: Path) -> None:
    """A sample that cannot wait lists the GPUs that there were, without a number; nothing is known of processes then."""
    driver = FakeDriver(library, tmp_path / "script")
    driver.tell("count 2", "proc 0 Compute 4194000 4096")
    with agent_on(driver, tmp_path) as agent:
        assert "proc" in agent.tick()[0]
        driver.tell("count 2", "fault 0 nvmlDeviceGetUtilizationRates hang")
        sample, events = agent.tick_until(lambda sample: sample["gpu"][0]["st"] == "unknown")
    assert (sample["gpu_state"], [(gpu["u"], gpu["st"]) for gpu in sample["gpu"]]) == (
        "ok", [("GPU-0", "unknown"), ("GPU-1", "unknown")],
    )  # fmt: skip
    assert "proc" not in sample
    assert not [event for event in events if event[0] == "gpu.lost"], "nobody is told before the deadline"


def test_lost_gpus_are_told(seen: Seen) -> None:
    """Each loss is an event; a list that cannot be read is named, so that nobody takes it for an idle GPU."""
    lost = {f"GPU-{place}" for place, fault in enumerate(FAULTS, 1) if fault.st == "lost"}
    assert {event[3] for event in seen.events if event[0] == "gpu.lost"} == lost
    (place,) = (place for place, fault in enumerate(FAULTS, 1) if fault.name == "no process lists")
    assert seen.sample["procs_err"] == {f"GPU-{place}": 4}
    assert {row["g"] for row in seen.sample["proc"]} == set(range(len(FAULTS) + 1)) - {place} - {int(u[4:]) for u in lost}


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_faults(library: Path, tmp_path: Path, seed: int) -> None:
    """Whatever fails together: every value that is there is the right one, and nothing becomes 0."""
    chance = random.Random(seed)
    driver = FakeDriver(library, tmp_path / "script")
    more = ("MemoryInfo_v2", "TemperatureV", "FieldValues", "NumFans")
    names = [*CALLS, *(f"nvmlDeviceGet{call}" for call in more), *(f"field_{field}" for field in FIELDS)]
    lines = [
        f"fault {place} {name} {chance.choice((1, 2, 3, 4, 6, 10, 13, 17, 25, 999))}"
        for place in range(1, 40)
        for name in chance.sample(names, chance.randrange(1, len(names)))
    ]
    driver.tell("count 40", *lines, "set * field_82 81", "set * field_230 2", "set * pstate 2", "set * field_145 5")
    with agent_on(driver, tmp_path) as agent:
        gpus = agent.tick()[0]["gpu"]
    well = _flat(gpus[0])
    for gpu in gpus[1:]:
        wrong = {key: value for key, value in _flat(gpu).items() if value != well.get(key) and key not in ("st", "fan_pct")}
        assert wrong == {}, gpu["u"]


# --- a real driver ----------------------------------------------------------------------------------------------------
def test_this_machines_own_driver(tmp_path: Path) -> None:
    """Where there is a real GPU: valid samples, the driver's own numbers, and counters that do not fall."""
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has no NVIDIA driver")
    clock = RealClock()
    with GpuWatch(clock) as watch:
        source = ThisHost(
            HostIdentity(id=HOST, name="here"), clock, Schedule(5.0, 0.0), watch,
            Processes(clock, namespace_is_hosts=in_first_pid_namespace()), interval_s=5.0,
        )  # fmt: skip
        samples = [source.events(EVERYTHING)[-1][5] for _ in range(3)]
        source.close()
    for sample in samples:
        assert problems_of(sample) == []
    first, last = samples[0], samples[-1]
    assert first["gpu_state"] in ("ok", "no_gpu")
    for before, now in zip(first["gpu"], last["gpu"], strict=True):
        assert before["u"] == now["u"]
        assert now["st"] in ("ok", "suspended")
        assert (now.get("e_mJ") or 0) >= (before.get("e_mJ") or 0)
        if now["st"] == "ok":
            assert (now.get("mem_tot") or 0) > 0 or now.get("unified")
