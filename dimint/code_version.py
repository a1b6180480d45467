"""Which code this is: the version, and a digest of the source files, so that two builds of one version can be told apart."""

from functools import cache
from pathlib import Path
from typing import Final

from xxhash import xxh3_64

from dimint import __version__

__all__ = ["code_version"]

_FOLDERS: Final = ("", "node", "consumers")
"""What decides how a projection comes out, relative to this package: the core, and the two that fold the log."""


@cache
def code_version() -> str:
    """`0.1.0+1a2b3c4d`: the version and the first 32 bits of xxh3_64 over names and contents of the sources."""
    root = Path(__file__).parent
    digest = xxh3_64()
    for folder in _FOLDERS:
        paths = (root / folder).rglob("*.py") if folder else root.glob("*.py")
        for path in sorted(paths):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:8]}"
