"""The systemd unit of the agent: as little as it needs, and everything it needs to see. [S]

What `systemd-analyze security` still asks for, and why it is not there:

    PrivateDevices, DeviceAllow=      the driver is asked through /dev/nvidia*, the kernel's lines about XIDs through /dev/kmsg
    PrivateUsers                      users of GPU processes would be nobody
    ProtectProc, ProcSubset           other users' processes; /proc/stat, meminfo and /proc/driver/nvidia
    ProtectKernelLogs, CAP_SYSLOG     /dev/kmsg
    CAP_SYS_PTRACE, ambient           the program behind another user's process
    MemoryDenyWriteExecute            ctypes, through which NVML is called, makes code for callbacks where libffi is old
    ProtectHome=yes                   how full /home is; the program may stand there too. It cannot be written
    PrivateNetwork, IPAddressDeny     samples go wherever the settings say

Of system calls those of ordinary services are left, without the ones that only privileged programs or the scheduler's
owners need. What is refused gets EPERM instead of a signal: a driver's library that tries more than NVML needs finds an
error, not its end.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["ENVIRONMENT_FILE", "STATE_FOLDER", "UNIT_NAME", "unit_text"]

UNIT_NAME: Final = "dimint-agent.service"
ENVIRONMENT_FILE: Final = "/etc/dimint/secrets.env"
STATE_FOLDER: Final = "/var/lib/dimint"
"""The service's user owns it."""
_GPUS: Final = 16
"""GPUs whose numbers are written out: systemd resolves names when the unit starts, and the driver may be loaded later."""
_NVIDIA_MAJOR: Final = 195  # fixed (Documentation/admin-guide/devices.txt of the kernel)
_CONTROL_MINOR: Final = 255


def unit_text(
    command: Sequence[str],
    *,
    user: str,
    makes_user: bool,
    knows_data_dir: bool,
    writable: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> str:
    """The unit that runs `command`.

    `makes_user`: the user exists only while the service runs; systemd keeps the state folder of such a one where no other
    unit may use it. `knows_data_dir`: the command's own settings say where its data is, else it is the state folder.
    `writable` are more folders to write in, `groups` own what the user has to read.
    """
    devices = [f"/dev/char/{_NVIDIA_MAJOR}:{minor} rw" for minor in (_CONTROL_MINOR, *range(_GPUS))]
    lines = [
        "[Unit]",
        "Description=DiMint agent: publishes CPU and GPU of this host",
        "Wants=network-online.target",
        "After=network-online.target nvidia-persistenced.service",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(map(_quoted, command))}",
        *([] if knows_data_dir else [f"Environment=DIMINT_DATA_DIR={STATE_FOLDER}"]),
        f"EnvironmentFile=-{ENVIRONMENT_FILE}",
        f"User={user}",
        *(["DynamicUser=yes"] if makes_user else []),
        *([f"SupplementaryGroups={' '.join(groups)}"] if groups else []),
        f"StateDirectory={STATE_FOLDER.rpartition('/')[2]}",
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
        "PrivateMounts=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RemoveIPC=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "SystemCallErrorNumber=EPERM",
        "UMask=0077",
        "LimitCORE=0",
        "MemoryMax=512M",
        "TasksMax=64",
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
