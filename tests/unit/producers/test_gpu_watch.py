"""The process that reads GPUs, watched: drivers that hang, crash, come later or sleep, and errors that they report."""

import os
import time
from pathlib import Path

import pytest

from dimint.clock import ManualClock
from dimint.producers.gpu_states import Fleet
from dimint.producers.gpu_watch import GpuReading, GpuWatch, Want, Xid
from tests.support.nvml import FakeDriver, Reader, RealClock


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
        assert watch.collect(0) == reading, "what is known stays known while it is tried again"
        assert watch.pid is not None


def test_driver_that_comes_later(driver: FakeDriver, reader: Reader) -> None:
    """Once the driver is loaded the GPUs appear, without a restart of the agent."""
    driver.tell("count 2", "fault * nvmlInitWithFlags 9")
    assert reader.read().state == "no_driver"
    driver.tell("count 2")
    assert reader.read().state == "no_driver", "not asked again at once"
    reader.clock.ahead += 31
    assert len(reader.read().gpus) == 2


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
    fleet = Fleet()
    gpus, _ = fleet.apply("ok", reader.read().gpus, frozenset(), 1)
    assert [(gpu["i"], gpu["st"]) for gpu in gpus] == [(0, "ok"), (1, "suspended")]
    reader.watch.close()
    (devices / "0000:10:00.0" / "power" / "runtime_status").write_text("suspended\n")
    reader = Reader(driver, tmp_path)
    driver.tell("count 2", "fault * nvmlInitWithFlags hang")
    asleep = reader.read()
    assert asleep.state == "suspended", "initialising would wake them all"
    gpus, _ = fleet.apply(asleep.state, asleep.gpus, frozenset(), 2)
    assert [(gpu["u"], gpu["name"], gpu["st"]) for gpu in gpus] == [
        ("GPU-0", "NVIDIA Fake", "suspended"),
        ("unknown-1", None, "suspended"),
    ], "they are listed by what was known of them, or by their place"
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
    assert watch.collect(0) == GpuReading("starting", [])
    assert watch.pid is None
    watch.close()
