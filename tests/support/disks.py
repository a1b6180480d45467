"""Small file systems for tests of full disks."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["small_disk_at"]


@contextmanager
def small_disk_at(place: Path, mib: int) -> Iterator[Path]:
    """A tmpfs of so many MiB, mounted at the new folder `place`; skips the test where that is not permitted."""
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("cannot mount a small tmpfs: not root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
