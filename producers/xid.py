"""XID errors: what the kernel log says of them, and one event out of two reports. [S]

The driver tells of an XID twice: through NVML (no right needed, but nothing of a GPU that is off the bus) and in the
kernel log (needs root or CAP_SYSLOG), as `NVRM: Xid (PCI:0000:3b:00): 79, pid=…`. NVIDIA's list of the numbers:
https://docs.nvidia.com/deploy/xid-errors/.
"""

import re
from collections import deque
from typing import Final, NamedTuple

__all__ = ["SAME_S", "XIDS_PER_MINUTE", "KernelXid", "XidFilter", "kernel_xid"]

SAME_S: Final = 5.0
"""The second report of one error comes within this time of the first."""
XIDS_PER_MINUTE: Final = 60
"""Most events of one host in a minute: a failing GPU can repeat itself a thousand times a second."""
_LINE: Final = re.compile(
    r"^\d+,\d+,(\d+),.*?;.*?\bNVRM: Xid \(PCI:([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.\d)?\): (\d{1,5})\b"
)


class KernelXid(NamedTuple):
    """`since_boot_us` is the kernel's clock; `pci` is domain:bus:device as sysfs writes it, without a function."""

    since_boot_us: int
    pci: str
    xid: int


def kernel_xid(record: str) -> KernelXid | None:
    """The XID in one record of /dev/kmsg, if there is one.

    >>> kernel_xid("4,812,5000000,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.")
    KernelXid(since_boot_us=5000000, pci='0000:3b:00', xid=79)
    """
    found = _LINE.match(record)
    if found is None:
        return None
    domain, _, rest = found[2].lower().partition(":")
    return KernelXid(int(found[1]), f"{domain[-4:]}:{rest}", int(found[3]))


class XidFilter:
    """Lets each error through once, whoever reports it first, and not more than can be of use."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str, str | None, int]] = deque(maxlen=256)
        self._passed: deque[float] = deque(maxlen=XIDS_PER_MINUTE)

    def is_new(self, source: str, uuid: str | None, xid: int, now: float) -> bool:
        """Whether to tell of it. `source` is who reports; `now` in s; a GPU that is not known (None) may be any."""
        for at, (time, other, gpu, number) in enumerate(self._seen):
            same = number == xid and (gpu == uuid or gpu is None or uuid is None)
            if same and other != source and now - time <= SAME_S:
                del self._seen[at]  # this pair is complete; a third report is another error
                return False
        if len(self._passed) == XIDS_PER_MINUTE and now - self._passed[0] < 60:
            return False
        self._seen.append((now, source, uuid, xid))
        self._passed.append(now)
        return True
