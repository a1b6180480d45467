"""The NVML reader against a real shared library that fails in every way that drivers are known to."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dimint.clock import ManualClock
from dimint.producers.gpu_states import Fleet
from dimint.producers.gpu_watch import GpuReading, GpuWatch, Want, Xid
from tests.support.nvml import FakeDriver, RealClock, build_library, device_calls

H100 = 85899345920


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the fake libraries of this session are built."""
    return tmp_path_factory.mktemp("nvml")


@pytest.fixture
def driver(libraries: Path, tmp_path: Path) -> FakeDriver:
    """A driver with the newest symbols and no GPU yet."""
    return FakeDriver(build_library(libraries), tmp_path / "script")


class Reader:
    """A watch on a fake driver, and its readings."""

    def __init__(self, driver: FakeDriver, sysfs: Path, **more: Any) -> None:
        self.clock = RealClock()
        self.watch = GpuWatch(self.clock, env=driver.environment, sysfs=str(sysfs), **more)

    def read(self, want: Want | None = None, *, timeout_s: float = 8.0) -> GpuReading:
        """One reading, which must come."""
        self.watch.ask(want or Want())
        reading = self.watch.collect(timeout_s)
        assert reading is not None
        return reading


@pytest.fixture
def reader(driver: FakeDriver, tmp_path: Path) -> Iterator[Reader]:
    """A reader of the driver, closed at the end."""
    reader = Reader(driver, tmp_path)
    yield reader
    reader.watch.close()


def test_eight_gpus(driver: FakeDriver, reader: Reader) -> None:
    """Every value of every GPU arrives in the unit of the schema."""
    driver.tell("count 8", "set 3 util 97", "set 3 field_82 81", "set 5 name NVIDIA H100 80GB HBM3")
    reading = reader.read()
    assert reading.state == "ok"
    assert [gpu["u"] for gpu in reading.gpus] == [f"GPU-{index}" for index in range(8)]
    assert {gpu["st"] for gpu in reading.gpus} == {"ok"}
    assert reading.gpus[3] == {
        "i": 3, "u": "GPU-3", "name": "NVIDIA Fake", "st": "ok", "pci": "0000:13:00.0",
        "util_pct": 97, "mutil_pct": 20, "mem_tot": H100, "mem_used": 1 << 30, "mem_rsv": 600 << 20,
        "t_mC": 36_000, "tmem_mC": 81_000, "p_mW": 120_000, "p_inst_mW": 121_500, "p_lim_mW": 700_000, "e_mJ": 123_456_789,
        "sm_MHz": 1980, "mem_MHz": 2619, "ev": 4, "fan_pct": [44, 45], "pst": 0, "enc_pct": 5, "dec_pct": 6,
        "pcie_tx": 1000, "pcie_rx": 2000, "nvl_tx": 2 << 20, "nvl_rx": 1 << 20, "rec": 0,
        "ecc": {"vc": 1, "vu": 0, "ac": 7, "au": 2}, "remap": {"c": 3, "u": 1, "pend": True, "fail": False},
        "thr_ns": {"sw_power_cap": 5 * 10**9, "thermal": 0, "sync_boost": 0, "board_limit": 0, "low_utilization": 0,
                   "reliability": 0, "sw_thermal": 30, "hw_thermal": 20, "hw_power_brake": 10},
    }  # fmt: skip
    assert reading.gpus[5]["name"] == "NVIDIA H100 80GB HBM3"
    assert reading.versions == {"driver": "570.86.15", "nvml": "12.570.86.15", "cuda": "12.8"}
    facts = reading.facts[0]
    assert (facts["t_slow_mC"], facts["minor"], facts["persistence"], facts["p_kind"]) == (87_000, 0, True, "average")
    assert reading.gpus[0]["tmem_mC"] is None, "this GPU does not measure it"


def test_no_library(tmp_path: Path) -> None:
    """A host without NVML gets that state, and no process is kept."""
    clock = RealClock()
    with GpuWatch(clock, sysfs=str(tmp_path), env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}) as watch:
        watch.ask(Want())
        reading = watch.collect(8.0)
        if reading is not None and reading.state == "ok":
            pytest.skip("this machine has the real library")
        assert reading == GpuReading("no_library", [], versions={"driver": None, "nvml": None, "cuda": None})
        watch.ask(Want())
        assert watch.pid is None
        clock.ahead += 31
        watch.ask(Want())
        assert watch.pid is not None, "it is tried again after a while"


@pytest.mark.parametrize(
    ("code", "state"),
    [(9, "no_driver"), (18, "driver_mismatch"), (4, "no_permission"), (28, "no_gpu"), (999, "unknown"), (13, "unknown")],
)
def test_driver_that_does_not_start(driver: FakeDriver, reader: Reader, code: int, state: str) -> None:
    """An error of initialisation is a state of the host, never an exception and never an empty answer."""
    driver.tell("count 1", f"fault * nvmlInitWithFlags {code}", "nvml 12.535.1")
    reading = reader.read()
    assert (reading.state, reading.gpus, reading.procs) == (state, [], None)
    assert reading.versions["nvml"] == "12.535.1"


def test_no_gpu(driver: FakeDriver, reader: Reader) -> None:
    """A driver without GPUs is told apart from no driver."""
    driver.tell("count 0")
    assert reader.read().state == "no_gpu"


def test_driver_that_comes_later(driver: FakeDriver, reader: Reader) -> None:
    """Once the driver is loaded the GPUs appear, without a restart of the agent."""
    driver.tell("count 2", "fault * nvmlInitWithFlags 9")
    assert reader.read().state == "no_driver"
    driver.tell("count 2")
    assert reader.read().state == "no_driver", "not asked again at once"
    reader.clock.ahead += 31
    assert len(reader.read().gpus) == 2


CALLS = {
    "nvmlDeviceGetUtilizationRates": ("util_pct", "mutil_pct"),
    "nvmlDeviceGetEnforcedPowerLimit": ("p_lim_mW",),
    "nvmlDeviceGetPerformanceState": ("pst",),
    "nvmlDeviceGetClockInfo": ("sm_MHz", "mem_MHz"),
    "nvmlDeviceGetEncoderUtilization": ("enc_pct",),
    "nvmlDeviceGetDecoderUtilization": ("dec_pct",),
    "field_186": ("p_inst_mW",),
    "field_197": ("pcie_tx",),
    "field_139": ("nvl_rx",),
    "field_230": ("rec",),
}


@pytest.mark.parametrize("code", [3, 4, 10, 999], ids=["not-supported", "no-permission", "timeout", "unknown"])
def test_each_call_fails_by_itself(driver: FakeDriver, reader: Reader, code: int) -> None:
    """A call that fails on one GPU makes its own values None there and changes nothing else; no value becomes 0."""
    driver.tell(f"count {len(CALLS) + 1}", *(f"fault {at} {name} {code}" for at, name in enumerate(CALLS)))
    reading = reader.read()
    whole = reading.gpus[len(CALLS)]
    for index, keys in enumerate(CALLS.values()):
        gpu = reading.gpus[index]
        assert gpu["st"] == "ok"
        assert {key for key in whole if gpu.get(key) is None and whole[key] is not None} == set(keys)
        assert bool(gpu.get("err")) == (code != 3)


def test_older_calls_stand_in(driver: FakeDriver, reader: Reader) -> None:
    """Where a driver lacks a newer call, the older one gives the value; without any of them it is None."""
    driver.tell(
        "count 2",
        *(
            f"fault * nvmlDeviceGet{call} 13"
            for call in ("MemoryInfo_v2", "TemperatureV", "CurrentClocksEventReasons", "NumFans", "FieldValues")
        ),
        "fault 1 nvmlDeviceGetTemperature 3",
    )
    first, second = reader.read().gpus
    assert (first["mem_tot"], first["mem_rsv"], first["t_mC"], first["ev"], first["fan_pct"]) == (H100, None, 36_000, 4, [44])
    assert (first["p_mW"], first["e_mJ"], first["p_inst_mW"]) == (120_000, 123_456_789, None)
    assert second["t_mC"] is None
    assert "err" not in second


def test_fields_fail_one_by_one(driver: FakeDriver, reader: Reader) -> None:
    """Of the values that come in one call each has its own code: what is missing is left out, nothing becomes 0."""
    no_ecc = (f"fault 0 field_{field} 3" for field in (3, 4, 5, 6))
    old = (f"fault 1 field_{field} 2" for field in (185, 230, 269, 270, 271, 142, 143, 144, 145))
    driver.tell("count 4", *no_ecc, *old, "fault 2 field_5 999", "fault 3 field_185 3", "fault 3 field_197 10")
    without_ecc, older, odd, plain = reader.read().gpus
    assert "ecc" not in without_ecc
    assert (older["p_mW"], older["rec"], "remap" in older, "sw_thermal" in older["thr_ns"]) == (120_000, None, False, False)
    assert odd["ecc"] == {"vc": 1, "vu": 0, "ac": None, "au": 2}
    assert odd["err"] == {"ecc_ac": 999}
    assert (plain["pcie_tx"], plain["pcie_rx"], plain["err"]) == (None, 2000, {"pcie_tx": 10})
    facts = reader.read().facts
    assert [gpu["p_kind"] for gpu in facts] == ["average", "instant", "average", "instant"]
    assert {"power_average", "recovery_action", "remap_c"} <= set(facts[1]["unsupported"]), "never asked again"


def test_margin_where_there_is_no_threshold(driver: FakeDriver, reader: Reader) -> None:
    """GPUs that give limits as a margin only tell how far they are from slowing down."""
    driver.tell("count 2", "fault 1 nvmlDeviceGetTemperatureThreshold 3")
    with_threshold, without = reader.read().gpus
    assert "t_margin_mC" not in with_threshold
    assert without["t_margin_mC"] == 51_000


def test_unified_memory(driver: FakeDriver, reader: Reader) -> None:
    """A GPU that shares the host's memory says so; it has no memory numbers of its own."""
    driver.tell("count 2", "fault 0 nvmlDeviceGetMemoryInfo_v2 3", "fault 0 nvmlDeviceGetMemoryInfo 3", "set 1 total 0")
    for gpu in reader.read().gpus:
        assert gpu["unified"] is True
        assert gpu.get("mem_tot") is None
        assert gpu["util_pct"] == 40


def test_name_that_is_no_text(driver: FakeDriver, reader: Reader) -> None:
    """A name that cannot be decoded costs the name and nothing else."""
    driver.tell("count 1", "set 0 name undecodable")
    (gpu,) = reader.read().gpus
    assert gpu["name"] is None
    assert gpu["st"] == "ok"
    assert gpu["util_pct"] == 40


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryInfo_v2", "field_185", "nvmlDeviceGetClockInfo"])
@pytest.mark.parametrize("code", [15, 16])
def test_gpu_lost_midway(driver: FakeDriver, reader: Reader, call: str, code: int) -> None:
    """A GPU that falls off the bus stays listed under its UUID as lost, the others go on, and it comes back."""
    driver.tell("count 3")
    reader.read()
    driver.tell("count 3", f"fault 1 {call} {code}")
    gpus = reader.read(Want(processes=True, slow=False)).gpus
    assert [gpu["st"] for gpu in gpus] == ["ok", "lost", "ok"]
    assert gpus[1]["u"] == "GPU-1"
    assert list(gpus[1]["err"].values()) == [code]
    assert gpus[1].get("util_pct") is None
    driver.tell("count 3")
    assert [gpu["st"] for gpu in reader.read().gpus] == ["ok", "lost", "ok"], "not asked again at once"
    reader.clock.ahead += 31
    assert [gpu["st"] for gpu in reader.read().gpus] == ["ok", "ok", "ok"]


def test_gpu_lost_before_the_start(driver: FakeDriver, reader: Reader) -> None:
    """A GPU that does not even give a handle is listed as lost and does not stop the others."""
    driver.tell("count 3", "fault 1 nvmlDeviceGetHandleByIndex_v2 15", "fault 2 nvmlDeviceGetHandleByIndex_v2 4")
    gpus = reader.read().gpus
    assert [(gpu["st"], gpu["u"]) for gpu in gpus] == [("ok", "GPU-0"), ("lost", None), ("unknown", None)]


def test_gpu_without_rights(driver: FakeDriver, reader: Reader) -> None:
    """A GPU on which every call fails is unknown, not an idle GPU with zeros."""
    driver.tell("count 2")
    reader.read()
    driver.tell("count 2", *(f"fault 1 {call} 999" for call in device_calls()))
    gpus = reader.read().gpus
    assert [gpu["st"] for gpu in gpus] == ["ok", "unknown"]
    assert gpus[1]["u"] == "GPU-1"
    assert gpus[1].get("util_pct") is None
    assert gpus[1].get("mem_used") is None


@pytest.mark.parametrize("symbols", [1, 2, 3])
def test_process_lists_of_every_version(libraries: Path, tmp_path: Path, symbols: int) -> None:
    """Old and new drivers give the same rows: compute and graphics of one pid are one row with the larger memory."""
    driver = FakeDriver(build_library(libraries, process_symbols=symbols), tmp_path / "script")
    driver.tell(
        "count 2",
        "proc 0 Compute 4711 1048576",
        "proc 0 Graphics 4711 2097152",
        "proc 0 Compute 12 -1",
        "proc 1 Graphics 4711 4096",
        "sample 0 4711 1000 35",
    )
    reader = Reader(driver, tmp_path)
    reading = reader.read()
    reader.watch.close()
    assert reading.procs == [[0, 12, None, "C", None], [0, 4711, 2097152, "CG", 35], [1, 4711, 4096, "G", None]]
    assert reading.procs_err == {}


def test_driver_older_than_its_library(driver: FakeDriver, reader: Reader) -> None:
    """A symbol that is there but not served by the driver leads to the next older one."""
    driver.tell(
        "count 1",
        "proc 0 Compute 4711 1048576",
        *(f"fault * nvmlDeviceGet{kind}RunningProcesses_v3 13" for kind in ("Compute", "Graphics")),
    )
    assert reader.read().procs == [[0, 4711, 1 << 20, "C", None]]


def test_process_list_that_fails_is_not_empty(driver: FakeDriver, reader: Reader) -> None:
    """A list that cannot be read is named in procs_err, so nobody takes it for an idle GPU."""
    driver.tell(
        "count 3",
        "proc 0 Compute 4711 1048576",
        "fault 1 nvmlDeviceGetComputeRunningProcesses_v3 4",
        "proccount 2 Compute 4000000",
        "fault 0 nvmlDeviceGetGraphicsRunningProcesses_v3 3",
    )
    reading = reader.read()
    assert reading.procs == [[0, 4711, 1 << 20, "C", None]]
    assert reading.procs_err == {"GPU-1": 4, "GPU-2": 7}


def test_process_rows_that_cannot_be(driver: FakeDriver, reader: Reader) -> None:
    """Pids that Linux does not give out are dropped, and memory beyond the GPU's is unknown."""
    driver.tell("count 1", "proc 0 Compute 0 4096", "proc 0 Compute 99999999 4096", f"proc 0 Compute 77 {H100 * 2}")
    assert reader.read().procs == [[0, 77, None, "C", None]]


def test_process_shares(driver: FakeDriver, reader: Reader) -> None:
    """Shares over 100 % and samples that were seen before are not taken for new ones."""
    driver.tell("count 1", *(f"proc 0 Compute {pid} 4096" for pid in (5, 6, 7)), "sample 0 5 1000 60", "sample 0 6 1000 700")
    assert [row[4] for row in reader.read().procs or []] == [60, None, None]
    assert [row[4] for row in reader.read().procs or []] == [None, None, None]


def test_mig_with_holes(driver: FakeDriver, reader: Reader) -> None:
    """Instances behind a hole are found, listed after all GPUs with their parent, and own the processes."""
    driver.tell(
        "count 2",
        "mig 0 0",
        "mig 0 3",
        "set 100 uuid MIG-a",
        "set 103 uuid MIG-b",
        "set 100 total 10737418240",
        "set 100 name NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "set 103 gpu_slices 3",
        "set 103 slice_mb 40448",
        "fault 0 nvmlDeviceGetMemoryInfo_v2 4",
        "fault 0 nvmlDeviceGetMemoryInfo 4",
        "proc 103 Compute 4711 1048576",
        "proc 0 Compute 4711 1048576",
        "proc 1 Compute 12 4096",
    )
    reader.read()  # the layout is known from now on
    reading = reader.read()
    assert [(gpu["i"], gpu["u"], gpu.get("parent")) for gpu in reading.gpus] == [
        (0, "GPU-0", None),
        (1, "GPU-1", None),
        (2, "MIG-a", "GPU-0"),
        (3, "MIG-b", "GPU-0"),
    ]
    parent, instance = reading.gpus[0], reading.gpus[2]
    assert (parent["st"], parent.get("util_pct"), parent.get("mem_tot"), parent["p_mW"]) == ("ok", None, None, 120_000)
    assert (instance["mem_tot"], instance["gi"], instance["ci"], instance.get("util_pct")) == (10 << 30, 3, 0, None)
    assert [gpu.get("profile") for gpu in reading.gpus[2:]] == ["1g.10gb", "1c.3g.40gb"]
    assert reading.procs == [[1, 12, 4096, "C", None], [3, 4711, 1 << 20, "C", None]]
    assert reading.facts[0]["mig"] is True
    driver.tell("count 2", "mig 0 3", "set 103 uuid MIG-b")
    assert [gpu["u"] for gpu in reader.read().gpus] == ["GPU-0", "GPU-1", "MIG-b"]


def test_xids_are_told(driver: FakeDriver, reader: Reader) -> None:
    """Errors come by themselves, once each, with the GPU; events that fail are listened to again after a while."""
    driver.tell("count 2", "fault 0 nvmlDeviceRegisterEvents 3", "fault * nvmlEventSetWait_v2 999")
    reader.read()
    driver.tell("count 2", "xid 1 79", "xid 0 31")
    found: list[Xid] = []
    deadline = time.monotonic() + 10
    while len(found) < 2:
        assert time.monotonic() < deadline
        reader.read()
        found += reader.watch.take_xids()
    assert [(xid.uuid, xid.xid) for xid in found] == [("GPU-1", 79), ("GPU-0", 31)]
    assert abs(found[0].time_ns - time.time_ns()) < 20 * 10**9
    assert reader.watch.take_xids() == []


def test_call_that_never_returns(driver: FakeDriver, tmp_path: Path) -> None:
    """A GPU whose call hangs is left alone and named as hung; the others are read again by a new process."""
    reader = Reader(driver, tmp_path, deadline_s=0.6)
    driver.tell("count 3")
    first = reader.read()
    fleet = Fleet()
    fleet.apply(first.state, first.gpus, reader.watch.hung(), 1)
    before = reader.watch.pid
    driver.tell("count 3", "fault 1 nvmlDeviceGetUtilizationRates hang")
    reader.watch.ask(Want())
    assert reader.watch.collect(0.1) is None, "nothing is said of GPUs while the answer may still come"
    time.sleep(0.6)
    reading = reader.watch.collect(5.0)
    for _ in range(3):
        if reading is None or reading.state == "hung":
            reader.watch.ask(Want())
            reading = reader.watch.collect(5.0)
    assert reading is not None
    assert [gpu["st"] for gpu in reading.gpus] == ["ok", "hung", "ok"]
    assert reader.watch.hung() == {1}
    assert reader.watch.pid != before
    gpus, changes = fleet.apply(reading.state, reading.gpus, reader.watch.hung(), 2)
    assert [(gpu["u"], gpu["st"]) for gpu in gpus] == [("GPU-0", "ok"), ("GPU-1", "hung"), ("GPU-2", "ok")]
    assert [(change.uuid, change.state) for change in changes] == [("GPU-1", "hung")]
    driver.tell("count 3")
    reader.clock.ahead += 31
    assert [gpu["st"] for gpu in reader.read().gpus] == ["ok", "ok", "ok"], "tried again after a while"
    reader.watch.close()


def test_initialisation_that_never_returns(driver: FakeDriver, tmp_path: Path) -> None:
    """A driver that hangs as a whole is a state of the host; it is tried again later."""
    reader = Reader(driver, tmp_path, deadline_s=0.5)
    driver.tell("count 1", "fault * nvmlInitWithFlags hang")
    reader.watch.ask(Want())
    assert reader.watch.collect(0.2) is None
    time.sleep(0.5)
    reader.watch.ask(Want())
    deadline = time.monotonic() + 5
    while (reading := reader.watch.collect(0.1)) is None:
        assert time.monotonic() < deadline
    assert (reading.state, reading.gpus) == ("hung", [])
    driver.tell("count 1")
    reader.clock.ahead += 31
    deadline = time.monotonic() + 5
    while reader.read().state != "ok":
        assert time.monotonic() < deadline
    reader.watch.close()


def test_process_that_cannot_be_killed(driver: FakeDriver, tmp_path: Path) -> None:
    """While a stuck process is still there no second one is started; readings say hung and come at once."""
    attempts = []
    reader = Reader(driver, tmp_path, deadline_s=0.4, kill=lambda child: attempts.append(child.pid))
    driver.tell("count 1", "fault 0 nvmlDeviceGetUtilizationRates hang")
    reader.watch.ask(Want())
    assert reader.watch.collect(0.1) is None
    stuck = reader.watch.pid
    for _ in range(5):
        time.sleep(0.2)
        started = time.monotonic()
        reader.watch.ask(Want())
        reading = reader.watch.collect(0.05)
        assert time.monotonic() - started < 0.6
    assert reading is not None
    assert (reading.state, reading.gpus) == ("hung", [])
    assert reader.watch.pid == stuck
    assert set(attempts) == {stuck}
    assert len(attempts) >= 2, "it is told again, in case it comes to itself"
    assert stuck is not None
    os.kill(stuck, 9)
    driver.tell("count 1")
    reader.clock.ahead += 31
    deadline = time.monotonic() + 5
    while reader.read().state != "ok":
        assert time.monotonic() < deadline
    assert reader.watch.pid != stuck
    reader.watch.close()


def test_reader_that_crashes(driver: FakeDriver, reader: Reader) -> None:
    """A driver library that takes its process down costs readings for a while, never the agent."""
    driver.tell("count 1")
    reader.read()
    pid = reader.watch.pid
    assert pid is not None
    os.kill(pid, 11)
    time.sleep(0.2)
    reader.watch.ask(Want())
    assert reader.read().state == "unknown"
    reader.clock.ahead += 31
    assert reader.read().state == "ok"


def test_sleeping_gpus_are_not_woken(driver: FakeDriver, tmp_path: Path) -> None:
    """A suspended GPU is not touched: none of its calls is made, and it is listed as suspended."""
    devices = tmp_path / "bus" / "pci" / "devices"
    for number, status in enumerate(("active", "suspended")):
        place = devices / f"0000:{16 + number:02x}:00.0"
        (place / "power").mkdir(parents=True)
        (place / "vendor").write_text("0x10de\n")
        (place / "class").write_text("0x030200\n")
        (place / "power" / "runtime_status").write_text(f"{status}\n")
    reader = Reader(driver, tmp_path)
    driver.tell("count 2", "fault 1 nvmlDeviceGetHandleByIndex_v2 hang")
    gpus = reader.read().gpus
    assert [(gpu["i"], gpu["st"]) for gpu in gpus] == [(0, "ok"), (1, "suspended")]
    reader.watch.close()
    (devices / "0000:10:00.0" / "power" / "runtime_status").write_text("suspended\n")
    reader = Reader(driver, tmp_path)
    driver.tell("count 2", "fault * nvmlInitWithFlags hang")
    assert reader.read().state == "suspended", "initialising would wake them all"
    reader.watch.close()


def test_closing_is_quick_and_leaves_nothing(driver: FakeDriver, tmp_path: Path) -> None:
    """The reading process is gone after close, also one that hangs."""
    for fault in ((), ("fault 0 nvmlDeviceGetUtilizationRates hang",)):
        reader = Reader(driver, tmp_path)
        driver.tell("count 1", *fault)
        reader.watch.ask(Want())
        reader.watch.collect(0.5)
        pid = reader.watch.pid
        started = time.monotonic()
        reader.watch.close()
        assert time.monotonic() - started < 2
        assert not Path(f"/proc/{pid}").exists()


def test_watch_never_asks_a_manual_clock_to_wait(tmp_path: Path) -> None:
    """A watch with nothing asked of it has nothing to say and starts nothing."""
    watch = GpuWatch(ManualClock(), sysfs=str(tmp_path))
    assert watch.collect(0) == GpuReading("unknown", [])
    assert watch.pid is None
    watch.close()
