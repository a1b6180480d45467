"""Process lists of the driver, old ones and broken ones too."""

from pathlib import Path

import pytest

from dimint.producers.gpu_watch import Want
from tests.support.nvml import FAKE_MEMORY, FakeDriver, Reader, build_library


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
    driver.tell("count 1", "proc 0 Compute 0 4096", "proc 0 Compute 99999999 4096", f"proc 0 Compute 77 {FAKE_MEMORY * 2}")
    assert reader.read().procs == [[0, 77, None, "C", None]]


def test_process_shares(driver: FakeDriver, reader: Reader) -> None:
    """Shares over 100 % and samples that were seen before are not taken for new ones."""
    driver.tell("count 1", *(f"proc 0 Compute {pid} 4096" for pid in (5, 6, 7)), "sample 0 5 1000 60", "sample 0 6 1000 700")
    assert [row[4] for row in reader.read().procs or []] == [60, None, None]
    assert [row[4] for row in reader.read().procs or []] == [None, None, None]


def test_shares_that_cannot_be_read_are_named(driver: FakeDriver, reader: Reader) -> None:
    """Processes without their share of the GPU say why; a driver that cannot tell it at all is not asked again."""
    driver.tell("count 2", *(f"proc {gpu} Compute 5 4096" for gpu in (0, 1)), "fault 0 nvmlDeviceGetProcessUtilization 4",
                "fault 1 nvmlDeviceGetProcessUtilization 3")  # fmt: skip
    reading = reader.read()
    assert [row[4] for row in reading.procs or []] == [None, None]
    assert [gpu.get("err") for gpu in reading.gpus] == [{"process_utilisation": 4}, None]
    assert reading.failed == [[0, "process_utilisation", 4]]
    assert reader.read(Want(processes=False)).gpus[0]["err"] == {"process_utilisation": 4}
