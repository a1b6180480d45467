"""A host on a terminal as its card is on a page: a line a GPU with its last minutes, and the processes on it. [S]

::

    ● gpu_01 · 10.0.0.1 · 8 × H100 80GB HBM3 · CPU 64 % · RAM 75/256 GiB · load 20.5 · up 11 h
      0  92% ▁▁▂▇██▇█████  aaaaaabb···· 48.0/80.0 GiB  61°C  588 W
           alice    python3 train.py · job 77        1243127  36.1 GiB   92%  3 h

Memory is told by its holders: a letter of each user's name for a twelfth of the GPU, `?` for what belongs to nobody.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from dimint.webapp.judge import about, slow_reasons, use_of
from dimint.webapp.models import Gpu, Host, Process, Sampled, Status, Use
from dimint.webapp.parts import SIGNS, gpu_sign
from dimint.webapp.text import clean, counted, display_name, fit, width

__all__ = ["card_lines", "level"]

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_MEMORY_CELLS: Final = 12
_SPARK_MAX: Final = 60
_GPU_LEAST: Final = 52
"""Columns of a GPU's line without its last minutes and what is wrong; less than that is done without the bar of its memory."""
_PROCESSES_MAX: Final = 8
_USER_COLUMNS: Final = 8
_PROCESS_LEAST: Final = 54
"""Columns of a process's line without its program."""


def level(percent: int) -> str:
    """A percentage as the height of one character."""
    return _LEVELS[min(7, max(0, percent) * 8 // 101)]


def card_lines(host: Host, columns: int, now_ns: int) -> Iterator[str]:
    """The host's line, then those of its GPUs, made for a terminal of that many columns."""
    name = "".join(display_name(host.name, simulated=host.simulated))
    start = f"{SIGNS[host.status][0]} {name} · {clean(host.ip)}"
    sample = host.newest
    if host.status is not Status.RUNNING or sample is None:
        yield f"{start} · {host.status}"
        return
    yield " · ".join([start, *_facts(sample)])
    for place, gpu in enumerate(sample.gpus):
        yield from _gpu_lines(gpu, _minutes(host, place), columns, now_ns)


def _facts(sample: Sampled) -> Iterator[str]:
    models = Counter(clean(gpu.name or "GPU").removeprefix("NVIDIA ") for gpu in sample.gpus if gpu.parent is None)
    yield " + ".join(f"{count} × {name}" for name, count in models.items()) if models else "no GPU"
    if sample.cpu_pm is not None:
        yield f"CPU {(sample.cpu_pm + 5) // 10} %"
    if sample.memory_used is not None and sample.memory_total:
        yield f"RAM {sample.memory_used >> 30}/{sample.memory_total >> 30} GiB"
    if sample.load:
        yield f"load {sample.load[0]:.1f}"
    if sample.up_s is not None:
        yield f"up {about(sample.up_s * 1_000_000_000)}"


def _minutes(host: Host, place: int) -> Sequence[int | None]:
    """Utilisation of the last minutes, as far back as this view of the host knows."""
    if place < len(host.hour):
        return [cell.util for cell in host.hour[place]]
    return host.trends[place] if place < len(host.trends) else ()


def _gpu_lines(gpu: Gpu, minutes: Sequence[int | None], columns: int, now_ns: int) -> Iterator[str]:
    start = f"{gpu.index:>3} "
    if gpu.state != "ok":
        yield f"{start} {gpu_sign(gpu.state)[0]} {clean(gpu.state)}"
        return
    words = [f"▲ {reason}" for reason in slow_reasons(gpu)]
    words += [f"MIG {clean(gpu.profile)}"] if gpu.profile else []
    words += ["split into MIG instances"] if use_of(gpu) is Use.SPLIT else []
    end = "".join(f"  {word}" for word in words)
    room = max(0, min(_SPARK_MAX, columns - _GPU_LEAST - width(end)))
    spark = "".join("·" if value is None else level(value) for value in minutes[-room:] if room)
    used = "-" if gpu.used_mib is None else f"{gpu.used_mib / 1024:.1f}"
    total = "-" if gpu.total_mib is None else f"{gpu.total_mib / 1024:.1f}"
    memory = f"{_memory(gpu)} " if columns >= _GPU_LEAST else ""
    heat, power = _number(gpu.temperature_c), _number(gpu.power_w)
    yield f"{start}{_number(gpu.util_pct):>4}% {spark:>{room}}  {memory}{used:>5}/{total:<5}GiB {heat:>3}°C {power:>4} W{end}"
    for process in gpu.processes[:_PROCESSES_MAX]:
        yield _process_line(process, columns, now_ns)
    if len(gpu.processes) > _PROCESSES_MAX:
        yield f"       and {counted(len(gpu.processes) - _PROCESSES_MAX, 'more process', 'more processes')}"


def _memory(gpu: Gpu) -> str:
    """The bar of a GPU's memory: a letter a user, in order of what they hold; the rest of what is used is nobody's."""
    if not gpu.total_mib or gpu.used_mib is None:
        return " " * _MEMORY_CELLS
    held: Counter[str] = Counter()
    for process in gpu.processes:
        held[clean(process.user or "?")] += process.used_mib or 0
    signs, told = "", 0
    for user, mib in held.most_common():
        told += mib
        letter = user[0] if user[0].isascii() and user[0].isalnum() else "?"
        signs += letter * (round(told * _MEMORY_CELLS / gpu.total_mib) - len(signs))
    signs += "?" * (round(max(told, gpu.used_mib) * _MEMORY_CELLS / gpu.total_mib) - len(signs))
    return f"{signs[:_MEMORY_CELLS]:·<{_MEMORY_CELLS}}"


def _process_line(process: Process, columns: int, now_ns: int) -> str:
    user = fit(clean(process.user or "?"), _USER_COLUMNS)
    program = clean(process.name or "-").rpartition("/")[2] or "-"
    place = f" · {clean(process.place)}" if process.place else ""
    memory = "-" if process.used_mib is None else f"{process.used_mib / 1024:.1f}"
    since = "" if process.started_ns is None else about(now_ns - process.started_ns)
    what = fit(program + place, max(12, columns - _PROCESS_LEAST))
    pid, share = fit(clean(process.pid), 8, right_align=True), _number(process.busy_pct)
    return f"       {user} {what} {pid} {memory:>6} GiB {share:>4}%  {since}".rstrip()


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
