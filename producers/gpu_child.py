"""The process that talks to NVML: `python -m dimint.producers.gpu_child [sysfs]`, started by gpu_watch.py alone.

Messages are msgpack values one after the other. In: one map a reading, `{"processes": bool, "slow": bool, "skip": [index]}`.
Out: `["at", index]` before a GPU is touched (-1 = the driver), `["opened", {state, driver, nvml, cuda}]` once,
`["reading", {…}]` for each request, and `["xid", [uuid | nil, xid, time_ns]]` whenever the driver reports one. It ends
when its input ends, or right after "opened" if there is nothing to read.

It imports pynvml and msgpack and nothing more, so that it stays small.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from dimint.producers.gpu import Nvml
from dimint.producers.gpu_events import XidListener

__all__ = ["main"]


def main() -> int:
    out = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # a library that prints must not break the messages

    turn = threading.Lock()

    def send(*message: Any) -> None:
        data = msgpack.packb(message)
        with turn:
            while data:
                data = data[os.write(out, data) :]

    def report(uuid: str | None, xid: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # the agent is gone, and so is the input that the other thread reads
            send("xid", [uuid, xid, time.time_ns()])

    listener = XidListener(report)
    sysfs = Path(sys.argv[1] if len(sys.argv) > 1 else "/sys")
    nvml = Nvml(lambda index: send("at", index), opened=listener.add, sysfs=sysfs)
    try:
        state = nvml.open()
        send("opened", {"state": state, "sleeping": nvml.sleeping, **nvml.versions})
        if state == "ok":
            listener.start()
            for request in _requests():
                send("reading", nvml.read(processes=request["processes"], slow=request["slow"], skip=request["skip"]))
        if listener.close():  # else it is in the driver, which must not be shut down under it
            nvml.close()
    except BrokenPipeError:
        return 0  # the agent is gone
    return 0


def _requests() -> Iterator[dict[str, Any]]:
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 16)
    while data := os.read(0, 1 << 14):
        unpacker.feed(data)
        yield from unpacker


if __name__ == "__main__":
    raise SystemExit(main())
