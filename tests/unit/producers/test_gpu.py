"""What is read of GPUs, from a real shared library that fails in every way that drivers are known to."""

import pytest

from dimint.producers.gpu_watch import Want
from tests.support.nvml import FAKE_MEMORY, FakeDriver, Reader, device_calls


def test_eight_gpus(driver: FakeDriver, reader: Reader) -> None:
    """Every value of every GPU arrives in the unit of the schema."""
    driver.tell("count 8", "set 3 util 97", "set 3 field_82 81", "set 5 name NVIDIA H100 80GB HBM3")
    reading = reader.read()
    assert reading.state == "ok"
    assert [gpu["u"] for gpu in reading.gpus] == [f"GPU-{index}" for index in range(8)]
    assert {gpu["st"] for gpu in reading.gpus} == {"ok"}
    assert reading.gpus[3] == {
        "i": 3, "u": "GPU-3", "name": "NVIDIA Fake", "st": "ok", "pci": "0000:13:00.0",
        "util_pct": 97, "mutil_pct": 20, "mem_tot": FAKE_MEMORY, "mem_used": 1 << 30, "mem_rsv": 600 << 20,
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
    assert (first["mem_tot"], first["mem_rsv"], first["t_mC"], first["ev"], first["fan_pct"]) == (
        FAKE_MEMORY,
        None,
        36_000,
        4,
        [44],
    )
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
    for fault in ("GetMaxMigDeviceCount 10", "GetMigDeviceHandleByIndex 999"):
        driver.tell("count 2", "mig 0 3", "set 103 uuid MIG-b", f"fault 0 nvmlDevice{fault}")
        assert [gpu["u"] for gpu in reader.read().gpus] == ["GPU-0", "GPU-1", "MIG-b"], "no answer is not no instance"


def test_errors_stay_as_long_as_their_values_are_missing(driver: FakeDriver, reader: Reader) -> None:
    """What the slow tier could not read is named in every sample until it is read again; it is counted when it fails."""
    driver.tell("count 1", "fault 0 field_5 999", "fault 0 nvmlDeviceGetClockInfo 17")
    first = reader.read()
    assert first.gpus[0]["err"] == {"ecc_ac": 999, "sm_clock": 17, "memory_clock": 17}
    fast = Want(processes=False, slow=False)
    second = reader.read(fast)
    assert second.gpus[0]["err"] == {"ecc_ac": 999, "sm_clock": 17, "memory_clock": 17}
    assert sorted(map(list, second.failed)) == [[0, "memory_clock", 17], [0, "sm_clock", 17]], "ECC was not read this time"
    driver.tell("count 1")
    assert reader.read(fast).gpus[0]["err"] == {"ecc_ac": 999}
    healed = reader.read()
    assert "err" not in healed.gpus[0]
    assert healed.failed == []


def test_what_a_gpu_is_is_asked_again_if_it_could_not_be_told(driver: FakeDriver, reader: Reader) -> None:
    """A name that was missing for a moment comes with the next slow reading; what was known does not go."""
    driver.tell("count 1", "fault 0 nvmlDeviceGetName 10")
    assert reader.read().gpus[0]["name"] is None
    driver.tell("count 1", "fault 0 nvmlDeviceGetUUID 10", "set 0 name NVIDIA H100")
    again = reader.read()
    assert [(gpu["u"], gpu["name"], gpu["err"]) for gpu in again.gpus] == [("GPU-0", "NVIDIA H100", {"uuid": 10})]
    driver.tell("count 1")
    assert "err" not in reader.read().gpus[0]
