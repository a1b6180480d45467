"""The fake driver, and a reader of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nvml import FakeDriver, Reader, build_library


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the fake libraries of this session are built."""
    return tmp_path_factory.mktemp("nvml")


@pytest.fixture
def driver(libraries: Path, tmp_path: Path) -> FakeDriver:
    """A driver with the newest symbols and no GPU yet."""
    return FakeDriver(build_library(libraries), tmp_path / "script")


@pytest.fixture
def reader(driver: FakeDriver, tmp_path: Path) -> Iterator[Reader]:
    """A reader of the driver, closed at the end."""
    reader = Reader(driver, tmp_path)
    yield reader
    reader.watch.close()
