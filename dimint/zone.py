"""The time zone of this machine, with its summer times."""

import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

__all__ = ["local_zone"]


def local_zone(variable: str | None = None, file: Path = Path("/etc/localtime")) -> tzinfo:
    """This machine's time zone with its summer times: of TZ (or `variable`), of `file`, or UTC."""
    name = os.environ.get("TZ", "") if variable is None else variable
    try:
        if name:
            return ZoneInfo(name.removeprefix(":"))
        with file.open("rb") as content:
            return ZoneInfo.from_file(content, key="localtime")
    except FileNotFoundError:
        return UTC
    except (KeyError, ValueError, OSError):
        if name:  # a POSIX rule such as CET-1CEST: the system knows it, with the offset of now
            return datetime.now().astimezone().tzinfo or UTC
        return UTC
