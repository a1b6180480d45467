"""The files of static/, read once into memory: no path of a request ever reaches the file system."""

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

__all__ = ["StaticFile", "load_static_files"]

_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class StaticFile(NamedTuple):
    """A file's bytes, its media type and the tag that browsers revalidate with."""

    body: bytes
    content_type: str
    etag: str


def load_static_files() -> dict[str, StaticFile]:
    """File name → file, of every file with a known ending."""
    found = {}
    for entry in files("dimint.webapp").joinpath("static").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[entry.name] = StaticFile(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found
