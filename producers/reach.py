"""What another user of this machine may read, by the mode bits on the way."""

import os
import pwd
import stat
from pathlib import Path
from typing import Final

__all__ = ["closed_folder", "exists", "may_read"]

_DYNAMIC_UIDS: Final = range(61184, 65520)
"""Of users that systemd makes for the time that a service runs (systemd's UIDS-GIDS)."""


def exists(user: str) -> bool:
    """Whether the user is there when no service of it runs."""
    try:
        return pwd.getpwnam(user).pw_uid not in _DYNAMIC_UIDS
    except KeyError:
        return False


def may_read(user: str, file: Path) -> bool:
    """Whether the file itself lets the user read it. Raises OSError."""
    return _may(user, file.stat(), stat.S_IROTH)


def closed_folder(user: str, path: Path) -> Path | None:
    """The first folder on the way to what is really at `path` that the user may not enter. Raises OSError."""
    for folder in reversed(path.resolve().parents):
        if not _may(user, folder.stat(), stat.S_IXOTH):
            return folder
    return None


def _may(user: str, found: os.stat_result, others: int) -> bool:
    """`others` is the right as the bit that everybody has it by; a user who is not there has no other."""
    if not exists(user):
        return bool(found.st_mode & others)
    account = pwd.getpwnam(user)
    if account.pw_uid == 0:
        return True
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & others << 6)
    if found.st_gid in os.getgrouplist(user, account.pw_gid):
        return bool(found.st_mode & others << 3)
    return bool(found.st_mode & others)
