"""Process lists of NVML, read through the library itself.

pynvml's own functions take the driver's count at its word and know only the two newest symbols; drivers have answered
with counts in the millions (each entry is then allocated) and older ones have only the first symbol. Everything here
works on a library that is already loaded and initialised, and on handles of pynvml.
"""

import ctypes
from typing import Any, NamedTuple

from dimint.limits import PROCESSES_MAX

__all__ = ["ListFailed", "Running", "running", "utilisation"]

_SUCCESS, _NOT_FOUND, _INSUFFICIENT_SIZE, _FUNCTION_NOT_FOUND = 0, 6, 7, 13
_NOT_AVAILABLE = 2**64 - 1
_PID_MAX = 1 << 22
"""Linux gives out no higher pid (PID_MAX_LIMIT): what is above is a broken answer."""
_SPARE = 8
"""Room for processes that start between the two calls."""


class Running(NamedTuple):
    """One process on one GPU; memory in bytes, None where the driver does not tell."""

    pid: int
    memory: int | None


class ListFailed(Exception):
    """The list could not be read; `code` is NVML's, INSUFFICIENT_SIZE also for a count that cannot be."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVML code {code}")
        self.code = code


class _First(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong))


class _Second(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Sample(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("time_us", ctypes.c_ulonglong),
        ("sm", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


_SYMBOLS: tuple[tuple[str, type[ctypes.Structure]], ...] = (("_v3", _Second), ("_v2", _Second), ("", _First))


def running(library: Any, handle: Any, kind: str) -> list[Running]:
    """Processes of `kind` ("Compute" or "Graphics") on the GPU or MIG instance. Raises ListFailed."""
    for suffix, row in _SYMBOLS:
        function = getattr(library, f"nvmlDeviceGet{kind}RunningProcesses{suffix}", None)
        if function is None:
            continue
        code, rows = _fill(lambda count, array, call=function: call(handle, count, array), row)
        if code == _FUNCTION_NOT_FOUND:  # the symbol is there, the driver below it is older
            continue
        if code != _SUCCESS:
            raise ListFailed(code)
        return [
            Running(item.pid, None if item.memory == _NOT_AVAILABLE else item.memory) for item in rows if 0 < item.pid <= _PID_MAX
        ]
    raise ListFailed(_FUNCTION_NOT_FOUND)


def utilisation(library: Any, handle: Any, since_us: int) -> tuple[dict[int, int], int]:
    """Share of the GPU's multiprocessors per pid in %, from samples after `since_us` (driver's clock); the newest time.

    A pid without a new sample is left out: that is not 0. Raises ListFailed.
    """
    function = getattr(library, "nvmlDeviceGetProcessUtilization", None)
    if function is None:
        raise ListFailed(_FUNCTION_NOT_FOUND)
    since = ctypes.c_ulonglong(since_us)
    code, rows = _fill(lambda count, array: function(handle, array, count, since), _Sample)
    if code == _NOT_FOUND:
        return {}, since_us
    if code != _SUCCESS:
        raise ListFailed(code)
    shares: dict[int, tuple[int, int]] = {}
    newest = since_us
    for item in rows:
        # drivers leave old and uninitialised entries in between
        if item.time_us <= since_us or item.sm > 100 or not 0 < item.pid <= _PID_MAX:
            continue
        newest = max(newest, item.time_us)
        if item.time_us >= shares.get(item.pid, (0, 0))[0]:
            shares[item.pid] = (item.time_us, item.sm)
    return {pid: sm for pid, (_, sm) in shares.items()}, newest


def _fill(call: Any, row: type[ctypes.Structure]) -> tuple[int, list[Any]]:
    """NVML's two-step call: ask for the count, then for that many rows; once more if they became more in between."""
    room = 0
    for _ in range(3):
        count = ctypes.c_uint(room)
        array = (row * room)() if room else None
        code: int = call(ctypes.byref(count), array)
        if code == _SUCCESS:
            return code, list(array[: min(count.value, room)]) if array is not None else []
        if code != _INSUFFICIENT_SIZE or count.value > PROCESSES_MAX:
            return code, []
        room = count.value + _SPARE
    return _INSUFFICIENT_SIZE, []
