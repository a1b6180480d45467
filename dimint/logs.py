"""Where messages go: a log file per process in `<data_dir>/logs`, and short lines to the terminal in the foreground."""

import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from dimint.visible import visible

__all__ = ["BACKGROUND", "LOG_MAX_BYTES", "log_path", "open_log_file", "start_logging"]

BACKGROUND: Final = "_DIMINT_BACKGROUND"
"""Environment: path of the log file that stdout and stderr of this process go to."""
LOG_MAX_BYTES: Final = 10 << 20
"""A log file that is larger gets the suffix `.1`, replacing the one before it."""


def log_path(data_dir: Path, name: str) -> Path:
    """The log file of the process `name` ("overlord", "node-2", …)."""
    return data_dir / "logs" / f"{name}.log"


def open_log_file(path: Path) -> int:
    """Descriptor of a log file, opened for appending; made with its directory if need be. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_MAX_BYTES:
            os.rename(path, path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def start_logging(path: Path, terminal: TextIO | None = None) -> None:
    """Send messages to the log file at `path`, tracebacks included, and warnings as one line each to `terminal`.

    In the background (see BACKGROUND) stdout and stderr are that file already. A file that cannot be opened is said once.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    background = os.environ.pop(BACKGROUND, None)
    if background is not None:
        root.addHandler(_LogFile(Path(background), 2, (1, 2)))
        return
    try:
        fd = open_log_file(path)
        root.addHandler(_LogFile(path, fd, (fd,)))
    except OSError as error:
        print(f"dimint: no log file: {path}: {error.strerror}", file=terminal or sys.stderr)
    if terminal is not None:
        root.addHandler(_Terminal(terminal))


class _Format(logging.Formatter):
    """`2030-01-31T12:00:00.123Z WARNING overlord-loop message`: UTC, the thread, control characters made visible."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(threadName)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n")


class _LogFile(logging.Handler):
    """Writes to an appending descriptor; a new file takes its place, on all of `descriptors`, when it is full."""

    def __init__(self, path: Path, fd: int, descriptors: tuple[int, ...]) -> None:
        super().__init__()
        self._path, self._fd, self._descriptors = path, fd, descriptors
        self.setFormatter(_Format())

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the process that wants to report it
            os.write(self._fd, self.format(record).encode("utf-8", "backslashreplace") + b"\n")
            if os.fstat(self._fd).st_size > LOG_MAX_BYTES:
                new = open_log_file(self._path)  # another process may have put a new file there already
                for fd in self._descriptors:
                    os.dup2(new, fd)
                os.close(new)


class _Terminal(logging.Handler):
    """Warnings and worse, one line each, without tracebacks."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.WARNING)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            line = visible(record.getMessage(), keep="\n").replace("\n", " ")
            print(f"dimint: {line}", file=self._stream, flush=True)
