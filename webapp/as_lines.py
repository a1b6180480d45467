"""Terminal views for many hosts: a line a host, a grid of GPU and time, a line a group. [S]

Problems come first, then the lines, a line of totals, and last how old the data is. Each line knows its host, so that
`dimint top` can go from a line to a host. No line is wider than the terminal; names are cleaned (text.py).
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from dimint.webapp.alerts import AlertLine
from dimint.webapp.as_card_lines import card_lines, level
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.groups import grouped, load_of
from dimint.webapp.head import SEVERITY
from dimint.webapp.judge import Problem, holder, units, use_of
from dimint.webapp.models import Cell, Gpu, Host, Status, Use
from dimint.webapp.parts import SIGNS
from dimint.webapp.text import clean, counted, cut, display_name, fit
from dimint.webapp.times import stamp

__all__ = ["LINE_VIEWS", "Frame", "Line", "data_line", "line_view", "tsv"]

LINE_VIEWS: Final = ("cards", "rows", "grid", "tiles")
WIDTH_MIN: Final = 40
_PROBLEMS_MAX: Final = 10
_TENS: Final = 6
_NAME_MAX: Final = 24
_CELL: Final = 8


class Line(NamedTuple):
    """One line; `host` is the name of the host that it is about, None for headings and totals."""

    host: str | None
    text: str


class Frame(NamedTuple):
    """What a line view is made of. `data` says how old the data is; `top` limits the lines of hosts or groups, 0 = all."""

    hosts: Sequence[Host]
    now_ns: int
    width: int
    data: str
    group: str | None = None
    top: int = 0
    alerts: Sequence[AlertLine] = ()
    problems: Sequence[Problem] = ()


Lines: TypeAlias = Iterator[Line]


def line_view(view: str, frame: Frame) -> list[Line]:
    """The lines of one of LINE_VIEWS."""
    body = {"cards": _cards, "rows": _rows, "grid": _grid, "tiles": _groups}[view](frame)
    lines = [*_problems(frame), *body, Line(None, _totals(frame.hosts)), Line(None, frame.data)]
    return [Line(line.host, cut(line.text, max(frame.width, WIDTH_MIN))) for line in lines]


def tsv(hosts: Sequence[Host]) -> str:
    """One line a GPU with a heading, fields by tabs, nothing where nothing is known: for scripts."""
    heads = "host ip status time gpu name uuid state util_pct used_mib total_mib temp_c power_w users".split()
    out = ["\t".join(heads)]
    for host in hosts:
        sample = host.newest
        time = "" if sample is None else str(sample.time_ns // 1_000_000_000)
        first = [clean(host.name), clean(host.ip), str(host.status), time]
        gpus: Sequence[Gpu | None] = sample.gpus if sample is not None and host.status is Status.RUNNING else ()
        for gpu in gpus or (None,):
            if gpu is None:
                out.append("\t".join([*first, *[""] * 10]))
                continue
            users = ",".join(sorted({clean(process.user) for process in gpu.processes if process.user}))
            numbers = (gpu.util_pct, gpu.used_mib, gpu.total_mib, gpu.temperature_c, gpu.power_w)
            cells = [str(gpu.index), gpu.name or "", gpu.uuid, gpu.state, *("" if one is None else str(one) for one in numbers)]
            out.append("\t".join([*first, *map(clean, cells), users]))
    return "\n".join(out) + "\n"


def _problems(frame: Frame) -> Lines:
    found = frame.problems
    for alert in frame.alerts[:_PROBLEMS_MAX]:
        where = f" {clean(alert.where)}" if alert.where else ""
        name = clean(alert.name) if alert.host is None else _name(alert.host)
        words = f"{alert.symbol} {clean(alert.alert.severity)} {name}{where}: {clean(alert.words)}"
        yield Line(alert.name, words)
    room = max(0, _PROBLEMS_MAX - len(frame.alerts))
    for problem in found[:room]:
        where = f" {problem.where}" if problem.gpus else ""
        yield Line(problem.host.name, f"{SEVERITY[problem.severity][0]} {_name(problem.host)}{where}: {clean(problem.text)}")
    count = len(frame.alerts) + len(found)
    if count > _PROBLEMS_MAX:
        yield Line(None, f"  and {count - _PROBLEMS_MAX} more problems")
    if count:
        yield Line(None, "")


def _name(host: Host) -> str:
    return "".join(display_name(host.name, simulated=host.simulated))


def _fit_name(host: Host, columns: int) -> str:
    name, mark = display_name(host.name, simulated=host.simulated)
    return fit(cut(name, columns - len(mark)) + mark, columns)


def _columns(hosts: Sequence[Host]) -> int:
    return min(_NAME_MAX, max([4, *(len(_name(host)) for host in hosts)]))


def _running(host: Host) -> Sequence[Gpu]:
    return host.newest.gpus if host.newest is not None and host.status is Status.RUNNING else ()


def _bar(gpu: Gpu) -> str:
    use = use_of(gpu)
    if use is Use.LOST:
        return "✖"
    if use is Use.FREE:
        return "·"
    if use is Use.SPLIT:
        return "M"
    return "?" if gpu.util_pct is None else level(gpu.util_pct)


def _holders(gpus: Sequence[Gpu]) -> str:
    counts: dict[str, int] = {}
    for gpu in gpus:
        if (user := holder(gpu)) is not None:
            counts[user] = counts.get(user, 0) + 1
    return " ".join(f"{clean(user)} {count}" for user, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _row_cells(host: Host) -> dict[str, str]:
    """Heading → text of a running host, but for its name and bars."""
    gpus, whole = _running(host), units(_running(host))
    cpu = host.newest.cpu_pm if host.newest is not None else None
    cells = {"CPU": f"{'-' if cpu is None else (cpu + 5) // 10:>3}%"}
    if not gpus:
        return cells
    known = [gpu.util_pct for gpu in gpus if gpu.util_pct is not None]
    used, total = sum(gpu.used_mib or 0 for gpu in whole) >> 10, sum(gpu.total_mib or 0 for gpu in whole) >> 10
    heat = max((gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None), default=None)
    return cells | {
        "free": f"{sum(use_of(gpu) is Use.FREE for gpu in whole)}/{len(whole)}",
        "busy": f"{sum(known) // len(known) if known else '-'}%",
        "memory GiB": f"{used:>5}/{total:<5}",
        "temp": f"{'-' if heat is None else heat}°C",
        "users": _holders(gpus),
    }


_ROW_CELLS: Final = {"free": 5, "busy": 5, "memory GiB": 11, "temp": 5, "CPU": 4}
"""Headings of the rows and their columns; users have what is left."""
_DROPPED: Final = ("memory GiB", "temp", "CPU")
"""What goes first where there is no room for all of it."""
_USERS_LEAST: Final = 7


def _cards(frame: Frame) -> Lines:
    for host in frame.hosts[: frame.top or None]:
        for line in card_lines(host, max(frame.width, WIDTH_MIN), frame.now_ns):
            yield Line(host.name, line)
        yield Line(None, "")


def _rows(frame: Frame) -> Lines:
    shown = frame.hosts[: frame.top or None]
    names = _columns(shown)
    bars = max([4, *(len(_running(host)) for host in shown)])
    cells = dict(_ROW_CELLS)
    for heading in _DROPPED:
        if names + bars + 5 + _USERS_LEAST + sum(1 + columns for columns in cells.values()) > max(frame.width, WIDTH_MIN):
            del cells[heading]
    heads = "".join(f" {heading:>{columns}}" for heading, columns in cells.items())
    yield Line(None, f"  {'host':<{names}} {'GPUs':<{bars}}{heads}  users")
    for host in shown:
        start = f"{SIGNS[host.status][0]} {_fit_name(host, names)} "
        if host.status is not Status.RUNNING:
            yield Line(host.name, start + str(host.status))
            continue
        found = _row_cells(host)
        middle = "".join(f" {found.get(heading, ''):>{columns}}" for heading, columns in cells.items())
        signs = "".join(map(_bar, _running(host))) or "-"
        yield Line(host.name, f"{start}{signs:<{bars}}{middle}  {found.get('users', '')}".rstrip())


def _cell_text(cell: Cell | None) -> str:
    """`87 ali`: mean utilisation and the first letters of who held it; a gap is `···`."""
    if cell is None or (cell.util is None and cell.use is Use.UNKNOWN):
        return "  ···  "
    if cell.use is Use.LOST:
        return " lost  "
    user = clean(cell.user)[:3] if cell.user else ("fre" if cell.use is Use.FREE else "")
    return f"{'' if cell.util is None else min(cell.util, 999):>3} {user:<3}"[: _CELL - 1]


def _ten(cells: Sequence[Cell]) -> Cell | None:
    """Ten minutes as one cell: the mean of what is known, and how the last known minute ended."""
    known = [cell for cell in cells if cell.use is not Use.UNKNOWN or cell.util is not None]
    if not known:
        return None
    utils = [cell.util for cell in known if cell.util is not None]
    return known[-1]._replace(util=sum(utils) // len(utils) if utils else None)


def _grid(frame: Frame) -> Lines:
    shown = frame.hosts[: frame.top or None]
    names = _columns(shown)
    columns = max(1, min(_TENS, (max(frame.width, WIDTH_MIN) - names - 6) // _CELL - 1))
    heads = "".join(f"{f'-{10 * back}m':>{_CELL}}" for back in range(columns, 0, -1))
    yield Line(None, f"  {'host':<{names}} GPU{heads}{'now':>{_CELL}}")
    for host in shown:
        gpus = _running(host)
        label = f"{SIGNS[host.status][0]} {_fit_name(host, names)}"
        if not gpus:
            yield Line(host.name, f"{label}   - {host.status if host.status is not Status.RUNNING else 'no GPU'}")
            continue
        for place, gpu in enumerate(gpus):
            cells = host.hour[place] if place < len(host.hour) else ()
            tens = [_ten(cells[-10 * back : len(cells) - 10 * (back - 1)]) for back in range(columns, 0, -1)]
            now = Cell(gpu.util_pct, use_of(gpu), holder(gpu))
            text = "".join(f" {_cell_text(cell)}" for cell in [*tens, now])
            yield Line(host.name, f"{label} {gpu.index:>3}{text}")
            label = " " * (names + 2)


def _groups(frame: Frame) -> Lines:
    groups = [(group, load_of(group.hosts)) for group in grouped(frame.hosts, frame.group)][: frame.top or None]
    names = min(_NAME_MAX, max((len(clean(group.name)) for group, _ in groups), default=5))
    for group, load in groups:
        uses = ((Use.BUSY, "busy"), (Use.IDLE, "idle-held"), (Use.FREE, "free"))
        words = [f"{load.gpus} GPU", *(f"{load.count(use)} {word}" for use, word in uses)]
        words += [f"{load.count(Use.LOST)} lost"] if load.count(Use.LOST) else []
        words += [f"{load.down} of {_hosts(load.hosts)} not running"] if load.down else []
        words += [f"median {load.p50}%"] if load.p50 is not None else []
        yield Line(None, f"{fit(clean(group.name), names)} {' '.join(words)}")


def _totals(hosts: Sequence[Host]) -> str:
    load = load_of(hosts)
    words = [_hosts(load.hosts), f"{load.gpus} GPU", f"{load.count(Use.BUSY)} busy", f"{load.count(Use.IDLE)} idle-held",
             f"{load.count(Use.FREE)} free"]  # fmt: skip
    words += [f"✖ {load.count(Use.LOST)} lost"] if load.count(Use.LOST) else []
    return " · ".join(words)


def data_line(data_ns: int | None, now_ns: int, hosts: Sequence[Host], style: TerminalStyle) -> str:
    """`data of 2018/12/03 23:16:59 · 3 s old · 2 hosts not running`."""
    words = ["no data"]
    if data_ns is not None:
        words = [f"data of {stamp(data_ns, style.zone, style.date_order)}", f"{max(0, now_ns - data_ns) // 1_000_000_000} s old"]
    if late := sum(host.backfilled for host in hosts):
        words.append(f"{_hosts(late)} backfilled")
    if silent := sum(host.status is not Status.RUNNING for host in hosts):
        words.append(f"{_hosts(silent)} not running")
    return " · ".join(words)


def _hosts(count: int) -> str:
    return counted(count, "host", "hosts")
