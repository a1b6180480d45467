"""How far long work is: a line that moves on a terminal, JSON lines for programs, both on stderr."""

import json
import shutil
import sys
import time
from typing import Final, NamedTuple, TextIO

__all__ = ["NO_PROGRESS", "Progress", "Report", "progress_of", "report"]

_EVERY_S: Final = 0.5


class Report(NamedTuple):
    """`done` of `total` are what the work is measured by, `counted` of `unit` what went through, `rate` how many a second.

    `left_s` None: not to be told yet.
    """

    what: str
    done: int
    total: int
    counted: int
    rate: float
    left_s: float | None
    unit: str = "events"

    def __str__(self) -> str:
        share = min(100, 100 * self.done // self.total) if self.total else 100
        left = "" if self.left_s is None else f", {_span(self.left_s)} left"
        return f"{self.what}: {share} %, {self.counted:,} {self.unit}, {self.rate:,.0f} {self.unit}/s{left}"


def report(what: str, done: int, total: int, count: int, took_s: float, unit: str = "events", *, begun: int = 0) -> Report:
    """The numbers after `took_s` seconds, of work of which `begun` was done before.

    >>> print(report("export", 25, 100, 1000, 2.0))
    export: 25 %, 1,000 events, 500 events/s, 0:06 left
    """
    rate = count / took_s if took_s > 0 else 0.0
    left_s = (total - done) * took_s / (done - begun) if done > begun and total >= done else None
    return Report(what, done, total, count, rate, left_s, unit)


class Progress:
    """Says nothing; see the classes below. `at` may be called as often as the work likes."""

    def begin(self, done: int) -> None:
        """The work goes on where so much of it was done before; without this it begins with nothing."""

    def at(self, done: int, total: int, count: int) -> None:
        """The work is so far."""

    def end(self, done: int, total: int, count: int) -> None:
        """The work is over, or was stopped here."""


NO_PROGRESS: Final = Progress()


class _Said(Progress):
    """Reports at most twice a second, and at the end if it has reported before."""

    def __init__(self, what: str, stream: TextIO, unit: str) -> None:
        self._what, self._stream, self._unit = what, stream, unit
        self._start_s = time.monotonic()
        self._next_s = self._start_s + _EVERY_S
        self._begun = 0
        self._reported = False

    def begin(self, done: int) -> None:
        self._begun = done

    def at(self, done: int, total: int, count: int) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _EVERY_S
            self._reported = True
            self._write(self._report(done, total, count, now_s), last=False)

    def end(self, done: int, total: int, count: int) -> None:
        if self._reported or self._says_end_always:
            self._reported = False
            self._write(self._report(done, total, count, time.monotonic()), last=True)

    def _report(self, done: int, total: int, count: int, now_s: float) -> Report:
        return report(self._what, done, total, count, now_s - self._start_s, self._unit, begun=self._begun)

    _says_end_always = False

    def _write(self, now: Report, *, last: bool) -> None:
        raise NotImplementedError


class _Line(_Said):
    """One line of a terminal, written over and over."""

    def _write(self, now: Report, *, last: bool) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r{str(now)[:width]}\x1b[K" + ("\n" if last else ""))
        self._stream.flush()


class _Lines(_Said):
    """JSON: {"progress": what, "done", "total", the unit: count, "rate", "left_s", "finished"}."""

    _says_end_always = True

    def _write(self, now: Report, *, last: bool) -> None:
        line = {"progress": now.what, "done": now.done, "total": now.total, now.unit: now.counted, "rate": now.rate}
        line |= {"left_s": now.left_s, "finished": last}
        self._stream.write(json.dumps(line) + "\n")  # at once: Ctrl-C must not come between a line and its end
        self._stream.flush()


def progress_of(what: str, *, as_json: bool = False, stream: TextIO | None = None, unit: str = "events") -> Progress:
    """JSON lines if asked for, a moving line on a terminal, else nothing; on stderr by default.

    `unit` is what `count` of `at` and `end` counts, in the plural.
    """
    stream = sys.stderr if stream is None else stream
    if as_json:
        return _Lines(what, stream, unit)
    return _Line(what, stream, unit) if stream.isatty() else NO_PROGRESS


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
