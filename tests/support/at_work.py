"""Process objects (dimint/service.py) at work on a thread of the test's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dimint.service import Process

__all__ = ["at_work"]


@contextmanager
def at_work(process: Process, *, patience_s: float = 10.0) -> Iterator[None]:
    """It runs within the block, and has ended when the block is left."""
    thread = threading.Thread(target=process.run, name=f"{type(process).__name__} under test")
    thread.start()
    try:
        yield
    finally:
        process.stop()
        thread.join(patience_s)
        assert not thread.is_alive()
