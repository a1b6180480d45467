"""What each state of the GPU driver means, in words. [S]"""

from collections.abc import Mapping
from typing import Final

__all__ = ["GPU_TEXTS"]

GPU_TEXTS: Final[Mapping[str, str]] = {
    "ok": "the driver answers",
    "no_library": "libnvidia-ml.so.1 is not there: no NVIDIA driver, or a container without it; CPU and memory are published",
    "no_driver": "the library is there and the kernel module is not loaded; try `nvidia-smi`",
    "driver_mismatch": "library and kernel module have different versions: reboot, or reload the module",
    "no_gpu": "the driver answers and has no GPU",
    "no_permission": "this user may not ask the driver; look at the rights of /dev/nvidia*",
    "hung": "a call into the driver does not return; look at `dmesg`",
    "suspended": "every GPU sleeps and is left asleep",
    "starting": "the agent was just started and the driver has not answered yet",
    "unknown": "the driver gives no reason; in a container, `systemctl daemon-reload` on the host takes the rights away",
}
