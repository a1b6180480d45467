"""The processes that were on a host's GPUs in a range, by user: who was here, on what, how long, with how much memory. [S]"""

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Final, NamedTuple

from dimint.consumers.intervals import Interval
from dimint.limits import GPUS_MAX
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.times import clock

__all__ = ["processes_section"]

_OPEN_MAX: Final = 12
"""Lines of a user that are there at once; the others are behind a click."""
_LINES_MAX: Final = 250
_HOUR_NS: Final = 3600 * 1_000_000_000
_DAY_NS: Final = 24 * _HOUR_NS
_TOGETHER_NS: Final = 60_000_000_000


class _User(NamedTuple):
    name: str
    held_ns: int
    processes: list[Interval]


def processes_section(found: Iterable[Interval], names: Mapping[str, str], from_ns: int, to_ns: int, zone: tzinfo) -> Node | None:
    """A table a user, who held GPUs the longest first; None if there was nobody. `names` are those of GPUs by UUID."""
    users = _by_user(found, names, from_ns, to_ns)
    if not users:
        return None
    day = to_ns - from_ns > _DAY_NS * 20 // 24
    left = _LINES_MAX
    blocks: list[Node] = []
    for user in users:
        shown = user.processes[: max(0, left)]
        left -= len(shown)
        gpus = sorted({_gpu(one, names) for one in user.processes}, key=_place)
        count = f"{len(user.processes)} process{'es' if len(user.processes) != 1 else ''}"
        summary = node(
            "summary", node("b", node("bdi", users_text(user.name))), f" · {_hours(user.held_ns)} GPU-hours · {count} on GPU ",
            users_text(", ".join(gpus[:16])),
        )  # fmt: skip
        rows = [_row(one, names, to_ns, zone, day=day) for one in shown]
        rest = len(user.processes) - len(shown)
        more = node("p", f"and {rest} more", cls="fine") if rest else None
        opened = "" if len(users) <= 4 and len(rows) <= _OPEN_MAX else None
        blocks.append(node("details", summary, node("div", _table(rows), more, cls="scroller"), open=opened))
    heading = node("h2", "Processes in this time")
    return node("section", heading, *blocks, cls="whowashere", aria_label="Processes in this time")


def _by_user(found: Iterable[Interval], names: Mapping[str, str], from_ns: int, to_ns: int) -> list[_User]:
    """Whoever held GPUs the longest first, with the processes that ended last first, of one minute in the order of GPUs."""

    def order(one: Interval) -> tuple[object, ...]:
        return -(one.end_ns // _TOGETHER_NS), _place(_gpu(one, names)), one.key

    users: dict[str, list[Interval]] = {}
    for one in found:
        users.setdefault(one.user, []).append(one)
    made = [
        _User(name, sum(_inside_ns(one, from_ns, to_ns) for one in mine), sorted(mine, key=order)) for name, mine in users.items()
    ]
    return sorted(made, key=lambda user: (-user.held_ns, user.name))


def _inside_ns(one: Interval, from_ns: int, to_ns: int) -> int:
    """Time within the range that the process was on its GPU."""
    span = max(1, one.end_ns - one.start_ns + one.sample_interval_ns)
    inside = min(one.end_ns + one.sample_interval_ns, to_ns) - max(one.start_ns, from_ns)
    return one.held_ns * max(0, inside) // span


def _table(rows: Iterable[Node]) -> Node:
    heads = (
        ("GPU", "right"),
        ("program", None),
        ("pid", "right wide"),
        ("from", "right"),
        ("to", "right"),
        ("most memory", "right"),
    )
    head = node("thead", node("tr", *(node("th", word, scope="col", cls=cls) for word, cls in heads)))
    return node("table", head, node("tbody", *rows), cls="stays")


def _row(one: Interval, names: Mapping[str, str], to_ns: int, zone: tzinfo, *, day: bool) -> Node:
    place = f"job {one.job}" if one.job else f"pod {one.pod}" if one.pod else ""
    program: list[Child] = [node("bdi", users_text(one.name))]
    if place:
        program.append(node("span", node("bdi", users_text(place)), cls="badge where"))
    still = one.end_ns + one.reach_ns >= to_ns
    memory = "–" if one.peak_memory is None else f"{one.peak_memory / (1 << 30):.1f} GiB"
    return node(
        "tr",
        node("td", users_text(_gpu(one, names)), cls="right"),
        node("td", *program, cls="name"),
        node("td", str(one.pid), cls="right wide"),
        node("td", clock(one.start_ns, zone, day=day), cls="right"),
        node("td", "still there" if still else clock(one.end_ns, zone, day=day), cls="right"),
        node("td", memory, cls="right"),
    )


def _gpu(one: Interval, names: Mapping[str, str]) -> str:
    """Its number; the beginning of its UUID if the host has it no more."""
    return names.get(one.gpu, one.gpu[:12]).removeprefix("GPU ")


def _place(gpu: str) -> tuple[int, str]:
    """GPUs in the order of their numbers."""
    return (int(gpu) if gpu.isdecimal() and gpu.isascii() else GPUS_MAX), gpu


def _hours(time_ns: int) -> str:
    hours = time_ns / _HOUR_NS
    return f"{hours:.1f}" if hours < 100 else f"{hours:.0f}"
