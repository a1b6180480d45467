"""XID errors as the driver reports them: waits for NVML's events on a thread of its own.

A wait that fails (a GPU that is lost, a driver without events) is tried again on a new event set, at first after a second
and then ever more rarely. GPUs are registered as they come, on this thread too, because any call may never return. Only
whole GPUs have events, MIG instances have none.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

import pynvml

from dimint.producers.schedule import Backoff

__all__ = ["XidListener"]

_WAIT_MS = 1000
_RETRY_FIRST_S, _RETRY_MOST_S = 1.0, 30.0


class XidListener:
    """Calls `report(uuid or None, xid)` on its thread, from `start` to `close`."""

    def __init__(self, report: Callable[[str | None, int], None]) -> None:
        self._report = report
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._handles: list[Any] = []
        self._stopping = threading.Event()
        self._retry = Backoff(_RETRY_FIRST_S, _RETRY_MOST_S)
        # a thread that is stuck in the driver must not keep the process: there is nothing to be finished on it
        self._thread = threading.Thread(target=self._run, name="xid", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, handle: Any) -> None:
        """Listen to one more GPU. From any thread."""
        self._waiting.put(handle)

    def close(self) -> bool:
        """Whether the thread has ended; if not, it is in a call of the driver."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(2 * _WAIT_MS / 1000)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except pynvml.NVMLError:
                self._stopping.wait(self._retry.next_s())

    def _listen(self) -> None:
        """One event set, until a call about it fails. Raises NVMLError."""
        events = pynvml.nvmlEventSetCreate()
        try:
            for handle in self._handles:
                _register(handle, events)
            while not self._stopping.is_set():
                while not self._waiting.empty():
                    self._handles.append(self._waiting.get())
                    _register(self._handles[-1], events)
                self._take(events)
        finally:
            pynvml.nvmlEventSetFree(events)

    def _take(self, events: Any) -> None:
        if not self._handles:
            self._stopping.wait(_WAIT_MS / 1000)
            return
        try:
            found = pynvml.nvmlEventSetWait_v2(events, _WAIT_MS)
        except pynvml.NVMLError_Timeout:
            self._retry.reset()
            return
        self._retry.reset()
        if found.eventType & pynvml.nvmlEventTypeXidCriticalError:
            self._report(_uuid(found.device), int(found.eventData))


def _register(handle: Any, events: Any) -> None:
    """A GPU without such events is left out; the others have theirs."""
    try:
        pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
    except pynvml.NVMLError as error:
        if error.value not in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST):
            raise


def _uuid(handle: Any) -> str | None:
    try:
        uuid = pynvml.nvmlDeviceGetUUID(handle)
    except (pynvml.NVMLError, UnicodeDecodeError):  # it may be the very GPU that is lost
        return None
    return uuid.decode("ascii", "replace") if isinstance(uuid, bytes) else uuid
