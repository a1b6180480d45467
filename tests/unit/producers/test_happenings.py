"""Events beside samples: XIDs from two sources, another driver, a clock that is set, starts and ends of the agent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.producers.changes import ClockWatch, DriverChange, DriverWatch
from dimint.producers.gpu_watch import Xid
from dimint.producers.happenings import Happenings, uuid_by_pci
from dimint.producers.kernel_log import KernelLog
from dimint.producers.state import LastRun, last_run, remember_run
from dimint.producers.xid import SAME_S, XIDS_PER_MINUTE, KernelXid, XidFilter, kernel_xid

SECOND = 10**9
RUN = b"12345678"


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (
            "4,812,5000000,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            KernelXid(5_000_000, "0000:3b:00", 79),
        ),
        ("3,9,1,c;[ 12.3] NVRM: Xid (PCI:00000000:AF:00.0): 31, Ch 00000013", KernelXid(1, "0000:af:00", 31)),
        ("4,812,5000000,-;NVRM: GPU at PCI:0000:3b:00: GPU-1", None),
        (" SUBSYSTEM=pci", None),
        ("", None),
    ],
)
def test_the_kernels_lines(record: str, found: KernelXid | None) -> None:
    """Old and new spellings of the driver's line are read, everything else is not."""
    assert kernel_xid(record) == found


@given(st.text(max_size=200))
def test_any_kernel_line_is_read(text: str) -> None:
    """Whatever stands in the kernel's log raises nothing."""
    kernel_xid(text)
    kernel_xid(f"1,2,3,-;NVRM: Xid (PCI:{text}")


def test_an_error_that_two_report_is_one() -> None:
    """The second source's report is the same error; the same source's next one is another; a storm is cut."""
    xids = XidFilter()
    assert xids.is_new("nvml", "GPU-0", 13, 0.0)
    assert not xids.is_new("kernel", "GPU-0", 13, 1.0)
    assert xids.is_new("kernel", "GPU-0", 13, 2.0)
    assert xids.is_new("nvml", "GPU-1", 13, 2.0), "another GPU"
    assert not xids.is_new("nvml", None, 13, 2.5), "the driver could not say which GPU"
    assert xids.is_new("kernel", "GPU-1", 13, 2.0 + SAME_S + 1)
    passed = sum(xids.is_new("nvml", "GPU-2", 31, 100 + number / 1000) for number in range(1000))
    assert passed == XIDS_PER_MINUTE
    assert xids.is_new("nvml", "GPU-2", 31, 200)


def test_kernel_log(tmp_path: Path) -> None:
    """Only what comes after the start counts; a log that may not be read has nothing."""
    path = tmp_path / "kmsg"
    path.write_text("4,1,1,-;NVRM: Xid (PCI:0000:3b:00): 31, old\n")
    kernel_log = KernelLog(path)
    assert list(kernel_log.xids()) == []
    with path.open("a") as file:
        file.write("6,2,5,-;usb 1-1: new device\n4,3,7,-;NVRM: Xid (PCI:0000:3b:00): 79, new\n")
    assert [line.xid for line in kernel_log.xids()] == [79]
    assert list(kernel_log.xids()) == []
    kernel_log.close()
    kernel_log.close()
    absent = KernelLog(tmp_path / "nothing")
    assert not absent.readable
    assert list(absent.xids()) == []


def test_the_clock_is_watched() -> None:
    """Drift is no step; a step is told once, with its size and direction."""
    clock = ClockWatch()
    steps = [clock.step_ms(time, mono) for time, mono in (
        (100 * SECOND, 0), (102 * SECOND + 400_000_000, 2 * SECOND), (50 * SECOND, 4 * SECOND), (52 * SECOND, 6 * SECOND),
    )]  # fmt: skip
    assert steps == [None, None, -54_400, None]


def test_the_driver_is_watched() -> None:
    """A change counts from the module that is loaded; a driver that hangs or may not be asked is still there."""
    driver = DriverWatch()
    assert driver.look("ok", "535.1", "535.1") is None, "the first look"
    assert driver.look("hung", None, "535.1") is None
    assert driver.look("unknown", None, None) is None
    assert driver.look("driver_mismatch", None, "535.1") is None, "upgraded, and the old module still runs"
    assert driver.look("ok", "550.2", "550.2") == DriverChange("535.1", "550.2")
    assert driver.look("no_driver", None, None) == DriverChange("550.2", None)
    again = DriverWatch(driver.known)
    assert again.look("no_library", None, None) is None
    assert again.look("ok", "550.2", None) == DriverChange(None, "550.2")


class Scene:
    """One host's happenings, with a kernel log to write into."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "kmsg"
        self.log.touch()
        self.start()

    def start(self) -> None:
        """A new run on the same directory."""
        self.happenings = Happenings(
            "h", RUN, last_run(self.folder), lambda run: remember_run(self.folder, run), KernelLog(self.log)
        )


def test_a_run_says_how_the_one_before_ended(tmp_path: Path) -> None:
    """First start, a start after a clean end, a start after a crash; the driver is remembered over all of them."""
    scene = Scene(tmp_path)
    assert scene.happenings.begin(1)[0][5] is None
    assert scene.happenings.driver(2, "ok", "535.1", None) == []
    assert scene.happenings.end(3, 7) == [["agent.stopped", "h", 3, RUN, 7]]
    scene.happenings.close()
    scene.start()
    assert scene.happenings.begin(4)[0][5] is True
    scene.happenings.close()
    scene.start()
    assert scene.happenings.begin(5)[0][5] is False
    assert scene.happenings.driver(6, "ok", "550.2", None) == [["driver.changed", "h", 6, "535.1", "550.2"]]
    assert last_run(tmp_path) == LastRun(False, ("550.2",))
    scene.happenings.close()
    (tmp_path / "run.json").write_text('{"clean": 3}')
    assert last_run(tmp_path) is None


def test_xids_of_both_sources_are_events(tmp_path: Path) -> None:
    """The driver's report and the kernel's line of one error are one event, at the time of the earlier one."""
    scene = Scene(tmp_path)
    with scene.log.open("a") as file:
        file.write(f"4,3,{95 * 10**6},-;NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus\n")
        file.write("4,4,1,-;NVRM: Xid (PCI:0000:5e:00): 13, a line of another clock\n")
    buses = uuid_by_pci([{"pci": "0000:3b:00.0", "u": "GPU-3"}, {"pci": None, "u": "GPU-4"}])
    told = [Xid("GPU-3", 79, 1_000 * SECOND - 4 * SECOND)]
    assert scene.happenings.xids(1_000 * SECOND, 100 * SECOND, told, buses) == [
        ["gpu.xid", "h", 995 * SECOND, "GPU-3", 79],
        ["gpu.xid", "h", 1_000 * SECOND, None, 13],
    ]
    scene.happenings.close()


def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """What cannot be remembered is only not remembered."""

    def refuse(run: LastRun) -> None:
        raise PermissionError("read-only")

    happenings = Happenings("h", RUN, None, refuse, KernelLog(tmp_path / "none"))
    assert len(happenings.begin(1)) == len(happenings.end(2, 0)) == 1
