"""The fake libnvidia-ml.so.1: built once a test session for each set of symbols, told what to do by a file."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dimint.producers.gpu_watch import GpuReading, GpuWatch, Want

__all__ = ["FAKE_MEMORY", "FakeDriver", "Reader", "RealClock", "build_library", "device_calls"]

FAKE_MEMORY = 85899345920
"""Bytes of memory that a GPU of the fake has if nothing else is said."""
_SOURCE = Path(__file__).parent / "fake_nvml" / "nvml.c"


def build_library(folder: Path, *, process_symbols: int = 3) -> Path:
    """Folder with the library in it, for LD_LIBRARY_PATH. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no C compiler, which CI must have")
        pytest.skip("no C compiler (cc) to build the fake NVML with")
    place = folder / f"nvml-{process_symbols}"
    library = place / "libnvidia-ml.so.1"
    if not library.exists():
        place.mkdir()
        options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-DPROC_VERSION={process_symbols}"]
        subprocess.run([compiler, *options, "-o", str(library), str(_SOURCE)], check=True)
    return place


class RealClock:
    """The machine's clocks, and a way to let them run ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time_ns(self) -> int:
        return time.time_ns() + round(self.ahead * 1e9)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def device_calls() -> list[str]:
    """Every call of the fake that belongs to a device, the ones made by macros too."""
    source = _SOURCE.read_text()
    named = re.findall(r"^(?:int |NUMBER_CALL\()(nvmlDeviceGet\w+)\(?", source, re.MULTILINE)
    return [name for name in named if "GetCount" not in name]


class FakeDriver:
    """A driver under a script. `environment` makes a child process use it."""

    def __init__(self, library: Path, script: Path) -> None:
        self._library, self._script = library, script
        self.tell("count 0")

    def tell(self, *lines: str) -> None:
        """Replace the script; the next call follows it."""
        fresh = self._script.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self._script)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"LD_LIBRARY_PATH": str(self._library), "FAKE_NVML": str(self._script)}


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
