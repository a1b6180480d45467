"""The views for `curl`: plain text in boxes of a fixed width, for people and for scripts that cut columns. [S]

Columns, cutting and numbers are those that scripts of the status server's users rely on: at 80 columns the output is the
documented one to the character. Other widths move the room between the host and the GPU column. Every line of a view has
a display width of at most the terminal's, and no name can end a line, a cell or a box early (text.py).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, NamedTuple

from dimint.sample import NOTHING_WRONG
from dimint.webapp.models import Gpu, Host, Process, Sampled, Status
from dimint.webapp.text import MISSING, clean, cut, display_name, fit, width
from dimint.webapp.times import DateOrder, gpu_stamp, stamp

__all__ = ["DETAIL_VIEW", "GPU_TABLE_VIEW", "STATUS_VIEW", "WIDTH_MAX", "WIDTH_MIN", "TerminalStyle", "TerminalView"]

WIDTH_MIN, WIDTH_MAX = 80, 1000

_MIB = 1 << 20
_PROCESS_NAME_COLUMNS = 25
_ADDRESS_COLUMNS_MAX = 28
_STAMP_COLUMNS = 23
"""An address in the box of a silent host; the name beside it keeps at least ten columns of 80."""


@dataclass(frozen=True, slots=True)
class TerminalStyle:
    """How to write: `columns` is kept inside WIDTH_MIN … WIDTH_MAX."""

    zone: tzinfo
    columns: int = 80
    date_order: DateOrder = DateOrder.YMD

    @property
    def width(self) -> int:
        return min(max(self.columns, WIDTH_MIN), WIDTH_MAX)


class TerminalView(NamedTuple):
    """One kind of view: what stands above, and the block of one host. A whole view is the blocks under the head."""

    name: str
    head: Callable[[TerminalStyle], str]
    block: Callable[[Host, TerminalStyle], str]

    def text(self, hosts: Iterable[Host], style: TerminalStyle) -> str:
        """The view of these hosts, in their order."""
        return self.head(style) + "".join(self.block(host, style) for host in hosts)


def _columns(style: TerminalStyle, host: int, gpu: int) -> tuple[int, int]:
    extra = style.width - 80
    return host + extra // 2, gpu + extra - extra // 2


def _status_rule(style: TerminalStyle) -> str:
    return _rule(*_columns(style, 18, 24), 17, 8, 7)


def _status_head(style: TerminalStyle) -> str:
    host_columns, gpu_columns = _columns(style, 18, 24)
    rule = _status_rule(style)
    return _text([rule, f"|{' host':<{host_columns}}|{' gpu':<{gpu_columns}}| memory usage    | volat. | temp. |", rule])


def _status_block(host: Host, style: TerminalStyle) -> str:
    if host.status is not Status.RUNNING:
        return _text([*_silent_box(host, style), _status_rule(style)])
    host_columns, gpu_columns = _columns(style, 18, 24)
    label = _name(host, host_columns)
    lines = []
    for gpu, cell in _gpu_cells(host.newest, gpu_columns):
        used, total = _number(gpu.used_mib if gpu else None, 6), _number(gpu.total_mib if gpu else None, 6)
        util, heat = _number(gpu.util_pct if gpu else None, 6), _number(gpu.temperature_c if gpu else None, 4)
        lines.append(f"|{label}|{cell}| {used} / {total} |{util} %|{heat} °C|")
        label = " " * host_columns
    return _text([*lines, _status_rule(style)])


def _table_rule(style: TerminalStyle) -> str:
    return _rule(*_columns(style, 30, 27), 19)


def _table_head(style: TerminalStyle) -> str:
    host_columns, gpu_columns = _columns(style, 30, 27)
    rule = _table_rule(style)
    return _text([rule, f"|{' host name':<{host_columns}}|{' gpu name':<{gpu_columns}}| memory usage (MiB)|", rule])


def _table_block(host: Host, style: TerminalStyle) -> str:
    if host.status is not Status.RUNNING:
        return _text([*_silent_box(host, style), _table_rule(style)])
    host_columns, gpu_columns = _columns(style, 30, 27)
    label = _name(host, host_columns)
    lines = []
    for gpu, cell in _gpu_cells(host.newest, gpu_columns):
        used, total = _number(gpu.used_mib if gpu else None, 7), _number(gpu.total_mib if gpu else None, 7)
        lines.append(f"|{label}|{cell}| {used} / {total} |")
        label = " " * host_columns
    return _text([*lines, _table_rule(style)])


def _detail_block(host: Host, style: TerminalStyle) -> str:
    lines = ["", _title(host, style), *_facts(host, style), "-" * style.width]
    if host.status is not Status.RUNNING:
        lines += _note_box(f"status: {host.status}", style)
    elif host.newest is None or not host.newest.gpus:
        lines += [*_note_box(f"gpu: {MISSING}{_support(host.newest)}", style), ""]
    else:
        for gpu in host.newest.gpus:
            lines += [*_gpu_box(gpu, host.newest, style), ""]
    return _text([*lines, "_" * style.width])


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _rule(*columns: int) -> str:
    return "+" + "+".join("-" * count for count in columns) + "+"


def _number(value: int | None, columns: int) -> str:
    """A right-aligned integer, or the sign for a missing one; what does not fit is cut so that the box stays whole."""
    return cut(f"{MISSING if value is None else value:>{columns}}", columns)


def _name(host: Host, columns: int) -> str:
    """The host's name in exactly `columns` columns; the mark of a simulated host is never cut off."""
    name, mark = display_name(host.name, simulated=host.simulated)
    return fit(cut(name, columns - len(mark)) + mark, columns)


def _support(sample: Sampled | None) -> str:
    """Why there are no GPUs, where that is a fault and not just a host without one."""
    if sample is None or sample.gpu_support in NOTHING_WRONG:
        return ""
    return f" [{clean(sample.gpu_support)}]"


def _gpu_name(gpu: Gpu) -> str:
    name = clean(gpu.name) if gpu.name else MISSING
    return name if gpu.state == "ok" else f"[{clean(gpu.state)}] {name}"


def _gpu_cells(sample: Sampled | None, columns: int) -> Iterator[tuple[Gpu | None, str]]:
    """Each GPU with its cell; one cell with `-` for a host that has none."""
    if sample is None or not sample.gpus:
        yield None, fit(f"{MISSING:>2}{_support(sample)}", columns)
        return
    for gpu in sample.gpus:
        yield gpu, fit(f"{gpu.index:2d}:{_gpu_name(gpu)}", columns)


def _silent_box(host: Host, style: TerminalStyle) -> list[str]:
    inner = style.width - 2
    address = cut(clean(host.ip), _ADDRESS_COLUMNS_MAX)
    name = _name(host, inner - 40 - width(address))
    when = stamp(host.newest.time_ns if host.newest else None, style.zone, style.date_order)
    return [
        f"|{fit(f' status: {host.status}', inner)}|",
        f"|   {name} ({address}) last update: {fit(when, 20)}|",
    ]


def _title(host: Host, style: TerminalStyle) -> str:
    address = cut(clean(host.ip), _ADDRESS_COLUMNS_MAX)
    name, mark = display_name(host.name, simulated=host.simulated)
    room = style.width - width(f"### {mark} :: {address} ")
    head = f"### {cut(name, room)}{mark} :: {address} "
    return head + "#" * (style.width - width(head))


def _facts(host: Host, style: TerminalStyle) -> Iterator[str]:
    sample = host.newest
    late = " (backfilled)" if host.backfilled else ""
    yield f"  last update: {stamp(sample.time_ns if sample else None, style.zone, style.date_order)}{late}"
    if sample is not None and sample.has_cpu:
        now = sample if host.status is Status.RUNNING else None  # old numbers would pass for present ones
        busy = MISSING if now is None or now.cpu_pm is None else f"{now.cpu_pm / 10:.1f}"
        load = MISSING if now is None or now.load is None else " ".join(f"{value:.2f}" for value in now.load)
        used, total = (_number(None if v is None else v // _MIB, 7) for v in _memory(now))
        yield cut(f"  cpu: {busy:>5} %  memory: {used} / {total} MiB  load: {load}", style.width)


def _memory(sample: Sampled | None) -> tuple[int | None, int | None]:
    return (None, None) if sample is None else (sample.memory_used, sample.memory_total)


def _note_box(note: str, style: TerminalStyle) -> list[str]:
    inner = style.width - 6
    empty = f"  │{' ' * inner}│"
    return [f"  ┌{'─' * inner}┐", empty, f"  │{fit(f'  {note}', inner)}│", empty, f"  └{'─' * inner}┘"]


def _gpu_box(gpu: Gpu, sample: Sampled, style: TerminalStyle) -> list[str]:
    inner = style.width - 6
    when = cut(clean(gpu.read_at), _STAMP_COLUMNS) if gpu.read_at else gpu_stamp(sample.time_ns, style.zone)
    name = cut(_gpu_name(gpu), inner - width(f"[ {gpu.key}  {when} ]"))
    title = f"[ {gpu.key} {name} {when} ]"
    used, total, left = _number(gpu.used_mib, 5), _number(gpu.total_mib, 5), _number(gpu.available_mib, 5)
    numbers = (
        f" {used} / {total}MiB          {left}MiB          {_number(gpu.util_pct, 3)}%        {_number(gpu.temperature_c, 3)}°C"
    )
    bar_columns = inner - 13
    filled = min(bar_columns, gpu.used_mib * bar_columns // gpu.total_mib) if gpu.used_mib and gpu.total_mib else 0
    bar = "/" * filled + " " * (bar_columns - filled)
    return [
        f"  ┌{title}{'─' * (inner - width(title))}┐",
        f"  │{fit('      memory used  memory available  gpu volatile  temperature', inner)}│",
        f"  │{fit(numbers, inner)}│",
        f"  │{' ' * inner}│",
        f"  │ mem [{bar}] {_number(gpu.memory_pct, 3)}% │",
        *(f"  │  {line}│" for line in _process_lines(gpu, inner - 2)),
        f"  └{'─' * inner}┘",
    ]


def _process_lines(gpu: Gpu, columns: int) -> Iterator[str]:
    lines = [_process_line(process) for process in gpu.processes]
    if not gpu.processes_known:
        lines.append("processes could not be read")
    for index, line in enumerate(lines, 1):
        yield fit(f"{'└──' if index == len(lines) else '├──'} {line}", columns - 1) + " "


def _process_line(process: Process) -> str:
    name = fit(clean(process.name) if process.name else MISSING, _PROCESS_NAME_COLUMNS, left=True)
    return f"{name} {_number(process.used_mib, 5)}MiB {clean(process.user) if process.user else MISSING}"


STATUS_VIEW: Final = TerminalView("status", _status_head, _status_block)
"""`/?term=true`: one line a GPU, a box for every host that is not running."""
GPU_TABLE_VIEW: Final = TerminalView("gpu_table", _table_head, _table_block)
"""`/gpu_table?term=true`: which GPUs there are and how full their memory is."""
DETAIL_VIEW: Final = TerminalView("detail", lambda _style: "", _detail_block)
"""`/?term=true&detail=true` and `/states/<host>/?term=true`: a box a GPU with its processes."""
