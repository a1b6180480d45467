"""GPU-hours per user and host over a range: what is asked, what is answered, and its forms. [S]

The sums are made from the samples hour by hour (consumers/usage.py says what held, active, wasted and unknown are). Of a
range that begins or ends within an hour the samples of that part are added up anew, so any range is exact to the second and
two ranges that meet come to what both together come to. Only where the samples themselves are kept no longer the range is
widened to whole hours; the answer says what it is of. Time of a host without samples, from its first one on, is *unknown*
and nobody's: it is never counted as use, nor as free. Everything is added up in whole microseconds, so the same log gives
the same digits, after a rebuild too.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from dimint.consumers.usage import HOUR_US, SHARINGS
from dimint.errors import BadQuery

__all__ = [
    "BY",
    "ERROR_BOUND",
    "Account",
    "Accounting",
    "Question",
    "Span",
    "Used",
    "WholeHours",
    "account",
    "as_csv",
    "as_json",
    "coverage",
    "default_from",
    "question",
]

BY: Final = ("user", "host")
ERROR_BOUND: Final = (
    "every start and end of a process is known to one sampling interval of its host (`int_ms` of its samples); "
    "time without samples is unknown, never use"
)
_SECOND_NS: Final = 1_000_000_000
_DEFAULT_NS: Final = 7 * 24 * 3600 * _SECOND_NS
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A cell that starts with one of these may be run as a formula by a spreadsheet program (CWE-1236)."""


class Question(NamedTuple):
    """`by` is a part of BY; the range is whole seconds in ns, UTC, its end not included."""

    from_ns: int
    to_ns: int
    by: tuple[str, ...] = BY
    sharing: str = "full"


class Used(NamedTuple):
    """What a user did on a host, µs. `unmeasured_us` was held, but how busy is not known.

    `nobody_us` is time without samples; it is of no user (None).
    """

    user: str | None
    host: str
    held_us: int
    active_us: int
    unmeasured_us: int
    nobody_us: int = 0


class Account(NamedTuple):
    """One line of the answer, µs of GPU time. `user` and `host` are None where the lines are not told apart by them."""

    user: str | None
    host: str | None
    held_us: int
    active_us: int
    unmeasured_us: int
    nobody_us: int

    @property
    def wasted_us(self) -> int:
        """Held without being busy."""
        return self.held_us - self.active_us - self.unmeasured_us

    @property
    def unknown_us(self) -> int:
        """Held, but how busy is not known; and time without samples."""
        return self.unmeasured_us + self.nobody_us


class Accounting(NamedTuple):
    """The answer. `capacity_us` is all GPU time of the hosts in the range; `nobody_us` of it has no samples.

    `longest_us` is the longest time that one sample stands for: what each start and end of a process may be off.
    """

    question: Question
    accounts: list[Account]
    capacity_us: int
    nobody_us: int
    longest_us: int = 0


def question(from_ns: int, to_ns: int, by: str, sharing: str) -> Question:
    """What is asked, in whole seconds; `by` is `user`, `host` or both. Raises BadQuery in one clear line."""
    from_ns, to_ns = from_ns // _SECOND_NS * _SECOND_NS, to_ns // _SECOND_NS * _SECOND_NS
    if from_ns >= to_ns:
        raise BadQuery("from is not before to, by a second or more")
    parts = [part.strip() for part in by.split(",")]
    if not set(parts) <= set(BY) or len(set(parts)) != len(parts):
        raise BadQuery(f"by is {by[:40]!r}; it can be user, host, or user,host")
    if sharing not in SHARINGS:
        raise BadQuery(f"there is no sharing rule {sharing[:40]!r}; there are {', '.join(SHARINGS)}")
    return Question(from_ns, to_ns, tuple(part for part in BY if part in parts), sharing)


def default_from(now_ns: int) -> int:
    """Where the range begins that is meant if nobody says: seven days ago, at a whole hour, so that no part has to be read."""
    hour_ns = HOUR_US * 1000
    return max(0, now_ns - _DEFAULT_NS) // hour_ns * hour_ns


class Span(NamedTuple):
    """A stretch of a host's time with samples: how many GPUs it had, and the µs of them of which the processes are known."""

    from_us: int
    to_us: int
    gpus: int
    known_us: int


class WholeHours:
    """The hours with samples of one host, in order, as few spans as come to the same by `coverage` from `from_us` to `to_us`."""

    __slots__ = ("_from_us", "_rows", "_to_us")

    def __init__(self, from_us: int, to_us: int) -> None:
        self._from_us, self._to_us = from_us, to_us
        self._rows: list[list[int]] = []

    def add(self, hour: int, gpus: int, known_us: int) -> None:
        """An hour; those with as many GPUs as the one before it are one span with it, where all of both counts."""
        begin, end = hour * HOUR_US, (hour + 1) * HOUR_US
        if begin >= self._from_us and end <= self._to_us:
            known_us = min(known_us, gpus * HOUR_US)
            if self._rows:
                last = self._rows[-1]
                if last[1] == begin and last[2] == gpus and last[0] >= self._from_us:
                    last[1] = end
                    last[3] += known_us
                    return
        self._rows.append([begin, end, gpus, known_us])

    def spans(self) -> list[Span]:
        return [Span(*row) for row in self._rows]


def coverage(spans: Iterable[Span], gpus: int, from_us: int, to_us: int) -> tuple[int, int]:
    """(capacity, unknown) in µs of a host from `from_us` to `to_us`.

    The spans ascend; `gpus` is how many it had before them. Where there is no sample, it has as many GPUs as before.
    """
    capacity = unknown = 0
    at = from_us
    for span_from, span_to, now, known_us in spans:
        begin, end = max(span_from, from_us), min(span_to, to_us)
        if begin >= end:
            gpus = now
            continue
        gap = gpus * max(0, begin - at)
        whole = now * (end - begin)
        capacity += gap + whole
        unknown += gap + max(0, whole - known_us)
        at, gpus = end, now
    gap = gpus * max(0, to_us - at)
    return capacity + gap, unknown + gap


def account(asked: Question, used: Iterable[Used], capacity_us: int, nobody_us: int, longest_us: int = 0) -> Accounting:
    """The answer, who held most first."""
    sums: dict[tuple[str | None, str | None], list[int]] = {}
    for row in used:
        key = row.user if "user" in asked.by else None, row.host if "host" in asked.by else None
        mine = sums.setdefault(key, [0, 0, 0, 0])
        for at, part in enumerate(row[2:]):
            mine[at] += part
    accounts = [Account(*key, *mine) for key, mine in sums.items() if any(mine)]
    accounts.sort(key=lambda one: (-one.held_us, one.user is None, one.user or "", one.host or ""))
    return Accounting(asked, accounts, capacity_us, nobody_us, longest_us)


# --- forms ----------------------------------------------------------------------------------------------------------
def as_json(answer: Accounting, when: Callable[[int], str]) -> dict[str, Any]:
    """As a value for JSON; `when` writes a time. Hours have six decimals."""
    asked = answer.question
    return {
        "from": when(asked.from_ns),
        "to": when(asked.to_ns),
        "sharing": asked.sharing,
        "by": list(asked.by),
        "gpu_hours": [
            {name: getattr(one, name) for name in asked.by} | {name: _hours(us) for name, us in _parts(one)}
            for one in answer.accounts
        ],
        "capacity": _hours(answer.capacity_us),
        "without_samples": _hours(answer.nobody_us),
        "error_bound": ERROR_BOUND,
        "error_bound_s": answer.longest_us / 1_000_000,
    }


def as_csv(answer: Accounting) -> str:
    """As CSV (RFC 4180) with a head line; names cannot become formulas of a spreadsheet."""
    by = answer.question.by
    lines = [[*by, "held", "active", "wasted", "unknown"]]
    for one in answer.accounts:
        lines.append([*(getattr(one, name) or "" for name in by), *(json.dumps(_hours(us)) for _, us in _parts(one))])
    return "".join(",".join(map(_cell, line)) + "\r\n" for line in lines)


def _parts(one: Account) -> tuple[tuple[str, int], ...]:
    return ("held", one.held_us), ("active", one.active_us), ("wasted", one.wasted_us), ("unknown", one.unknown_us)


def _hours(us: int) -> float:
    return round(us / HOUR_US, 6)


def _cell(text: str) -> str:
    if text.startswith(_FORMULA):
        text = f"'{text}"
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n') or text != text.strip() else text
