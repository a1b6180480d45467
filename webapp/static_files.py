"""The files that browsers load, read once into memory: no path of a request ever reaches the file system.

Beside our own in static/ there is uPlot (https://github.com/leeoniya/uPlot), which draws charts with a cursor. It comes
from the package `youplot`, as files: no code of that package is imported, and only the very bytes of uPlot's own release
are served. Without them the pages show the charts that the server draws.
"""

import hashlib
import logging
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["StaticFile", "load_static_files"]

_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_PLOTTER: Final = "youplot"
_RELEASED: Final = {
    "uplot.js": ("youplot/vendor/uplot.iife.min.js", "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2"),
    "uplot.css": ("youplot/vendor/uplot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
}
"""Name here → file in the package, SHA-256 of dist/uPlot.iife.min.js and dist/uPlot.min.css of uPlot 1.6.31 on npm."""

log = logging.getLogger("dimint.webapp")


class StaticFile(NamedTuple):
    """A file's bytes, its media type and the tag that browsers revalidate with."""

    body: bytes
    content_type: str
    etag: str


def load_static_files(plotter: str = _PLOTTER) -> dict[str, StaticFile]:
    """File name → file, of every file with a known ending; uPlot's are from the package `plotter`, both of them or neither."""
    found = {}
    for entry in files("dimint.webapp").joinpath("static").iterdir():
        kind = entry.name.rpartition(".")[2]
        if kind in _TYPES:
            found[entry.name] = _static(entry.read_bytes(), kind)
    return found | _uplot(plotter)


def _uplot(package: str) -> dict[str, StaticFile]:
    found = {}
    try:
        installed = distribution(package)
        for name, (path, digest) in _RELEASED.items():
            body = Path(str(installed.locate_file(path))).read_bytes()
            if hashlib.sha256(body).hexdigest() != digest:
                log.warning("%s of the package %s is not uPlot's release: charts are drawn by the server", path, package)
                return {}
            found[name] = _static(body, name.rpartition(".")[2])
    except (PackageNotFoundError, OSError):
        log.warning("the package %s with uPlot is not installed: charts are drawn by the server, without a cursor", package)
        return {}
    return found


def _static(body: bytes, kind: str) -> StaticFile:
    return StaticFile(body, _TYPES[kind], f'"{hashlib.sha256(body).hexdigest()[:20]}"')
