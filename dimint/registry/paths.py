"""What names and values in a registry may look like; the same for every backend. [S]"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from dimint.errors import RegistryError

__all__ = ["INFO_MAX_BYTES", "USES_VALUES", "VALUE_MAX_BYTES", "check_id", "check_path", "encode_info"]

VALUE_MAX_BYTES: Final = 512 << 10
INFO_MAX_BYTES: Final = 512 << 10
PATH_MAX_CHARS: Final = 200
USES_VALUES: Final = frozenset({"overlord", "node"})
"""While a member of these roles lives, stored values are in use and `clear` leaves them."""

_SEGMENT = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]*")
_ID = re.compile(r"[A-Za-z0-9_:\[\]\-][A-Za-z0-9_.:\[\]\-]{0,199}")


class NameRefused(RegistryError):
    """A role, id, election, path or value that no registry can hold."""

    retriable = False


def check_id(text: str) -> None:
    """Roles, member ids and elections: letters, digits and `_-.:[]`, not a dot first; "[::1]:5556" is one."""
    if not _ID.fullmatch(text):
        raise NameRefused(f"{text[:60]!a} cannot be a name in the registry")


def check_path(path: str, value: bytes = b"") -> None:
    """A path as the port defines it, and the size of the value that is to be stored there."""
    segments = path.split("/")
    if len(path) > PATH_MAX_CHARS or not all(_SEGMENT.fullmatch(part) for part in segments):
        raise NameRefused(f"{path[:60]!a} cannot be a path in the registry")
    if len(value) > VALUE_MAX_BYTES:
        raise NameRefused(f"{path}: {len(value)} bytes are more than {VALUE_MAX_BYTES}")


def encode_info(info: Mapping[str, Any]) -> bytes:
    """A member's info as JSON."""
    try:
        encoded = json.dumps(info, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as error:
        raise NameRefused(f"the info is not JSON: {error}") from None
    if len(encoded) > INFO_MAX_BYTES:
        raise NameRefused(f"the info of {len(encoded)} bytes is larger than {INFO_MAX_BYTES}")
    return encoded
