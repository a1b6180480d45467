"""The systemd unit of the agent: as little as it needs, and everything it needs to see. [S]

What a hardened unit usually has and this one must not: PrivateDevices and PrivateUsers hide the GPUs, ProtectProc and
ProcSubset the processes on them, ProtectKernelLogs the kernel's lines about XIDs.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["UNIT_NAME", "unit_text"]

UNIT_NAME: Final = "dimint-agent.service"
_GPUS: Final = 16
"""GPUs whose numbers are written out: systemd resolves names when the unit starts, and the driver may be loaded later."""
_NVIDIA_MAJOR: Final = 195  # fixed (Documentation/admin-guide/devices.txt of the kernel)
_CONTROL_MINOR: Final = 255


def unit_text(command: Sequence[str], *, user: str, state: str, environment_file: str, writable: Sequence[str] = ()) -> str:
    """The unit that runs `command`. `state` is the folder's name in /var/lib, `writable` are more folders to write in."""
    devices = [f"/dev/char/{_NVIDIA_MAJOR}:{minor} rw" for minor in (_CONTROL_MINOR, *range(_GPUS))]
    lines = [
        "[Unit]",
        "Description=DiMint agent: publishes CPU and GPU of this host",
        "Wants=network-online.target",
        "After=network-online.target nvidia-persistenced.service",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(map(_quoted, command))}",
        f"Environment=DIMINT_DATA_DIR=/var/lib/{state}",
        f"EnvironmentFile=-{environment_file}",
        f"User={user}",
        "DynamicUser=yes",
        f"StateDirectory={state}",
        "StateDirectoryMode=0700",
        *(f"ReadWritePaths={_quoted(folder)}" for folder in writable),
        "Restart=always",
        "RestartSec=5",
        "RestartSteps=6",
        "RestartMaxDelaySec=60",
        "TimeoutStopSec=15",
        "# other users' programs, and the kernel's lines about XIDs",
        "AmbientCapabilities=CAP_SYS_PTRACE CAP_SYSLOG",
        "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_SYSLOG",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "UMask=0077",
        "LimitCORE=0",
        "MemoryMax=512M",
        "# GPUs: by the driver's names in /proc/devices, and by number in case it is loaded after this unit",
        "DevicePolicy=closed",
        "DeviceAllow=char-nvidia* rw",
        *(f"DeviceAllow={device}" for device in devices),
        "DeviceAllow=/dev/kmsg r",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """A word of a command line as systemd reads it.

    >>> print(_quoted("--tags=rack=1"), _quoted("50 % of $HOME"))
    --tags=rack=1 "50 %% of $$HOME"
    """
    word = word.replace("%", "%%").replace("$", "$$")
    if word and not any(char.isspace() or char in "\"'\\;" for char in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
