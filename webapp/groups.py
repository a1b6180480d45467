"""Hosts in groups, by a tag, a GPU model or their names, and what a group of GPUs does as a few numbers. [S]"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dimint.webapp.judge import units, use_of
from dimint.webapp.models import Host, Status, Use

__all__ = ["Group", "Load", "grouped", "load_of", "percentile", "quoted"]

_SPLIT_FROM: Final = 40
"""A group by names that is larger is split by the leading digits of the numbers in them."""
_NUMBERED: Final = re.compile(r"(.*?)[-_.]?(\d*)", re.DOTALL)
_PREFERRED: Final = ("rack", "group", "cluster", "lab", "room", "team")


@dataclass(frozen=True, slots=True)
class Load:
    """What some GPUs do: how many, how they are used, and utilisation in % at the 5th, 50th and 95th percentile."""

    hosts: int
    down: int
    gpus: int
    uses: Counter[Use]
    p5: int | None
    p50: int | None
    p95: int | None

    def count(self, use: Use) -> int:
        return self.uses[use]


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts that belong together. `filter` is what shows just them."""

    name: str
    filter: str
    hosts: tuple[Host, ...]


def percentile(ordered: Sequence[int], percent: int) -> int | None:
    """The value at this percentile of ascending values (nearest rank); None of none."""
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1 if percent else 0)] if ordered else None


def load_of(hosts: Iterable[Host]) -> Load:
    """What the GPUs of these hosts do. Hosts that are not running count, their GPUs do not."""
    count = down = gpus = 0
    uses: Counter[Use] = Counter()
    busy: list[int] = []
    for host in hosts:
        count += 1
        if host.status is not Status.RUNNING:
            down += 1
            continue
        for gpu in units(host.newest.gpus) if host.newest is not None else ():
            gpus += 1
            uses[use_of(gpu)] += 1
            if gpu.util_pct is not None:
                busy.append(gpu.util_pct)
    busy.sort()
    return Load(count, down, gpus, uses, percentile(busy, 5), percentile(busy, 50), percentile(busy, 95))


def grouped(hosts: Sequence[Host], by: str | None = None) -> list[Group]:
    """Groups by name: by the tag `by`, by `model`, by `name`, or, with None or `tag`, by what tells most of these hosts apart."""
    key = _key(hosts, by)
    members: dict[tuple[str, str], list[Host]] = {}
    for host in hosts:
        members.setdefault(key(host), []).append(host)
    return [Group(name, filter_, tuple(found)) for (name, filter_), found in sorted(members.items())]


def _key(hosts: Sequence[Host], by: str | None) -> Callable[[Host], tuple[str, str]]:
    if by in (None, "", "tag"):
        names = Counter(name for host in hosts for name, _ in host.tags)
        useful = [name for name, count in names.items() if count * 2 > len(hosts)]
        by = min(useful, key=lambda name: (_rank(name), name), default="name")
    if by == "name":
        return _by_name(hosts)
    return _by_model if by == "model" else lambda host: _by_tag(host, by)


def _rank(tag: str) -> int:
    return _PREFERRED.index(tag) if tag in _PREFERRED else len(_PREFERRED)


def _by_tag(host: Host, tag: str | None) -> tuple[str, str]:
    value = next((text for name, text in host.tags if name == tag), None)
    return ("(no tag)", f"not tag:{quoted(f'{tag}=*')}") if value is None else (value, f"tag:{quoted(f'{tag}={value}')}")


def _by_model(host: Host) -> tuple[str, str]:
    names = Counter(gpu.name for gpu in host.newest.gpus if gpu.name) if host.newest is not None else Counter[str]()
    name = max(names, key=lambda text: (names[text], text), default=None)
    return ("(no GPU)", "gpus==0") if name is None else (name, f"gpu.name=={quoted(name)}")


def _by_name(hosts: Sequence[Host]) -> Callable[[Host], tuple[str, str]]:
    sizes = Counter(_split(host.name)[0] for host in hosts)

    def key(host: Host) -> tuple[str, str]:
        stem, digits = _split(host.name)
        if sizes[stem] > _SPLIT_FROM and len(digits) > 1:
            head = host.name[:-1] if len(digits) == 2 or sizes[stem] <= _SPLIT_FROM * 10 else host.name[:-2]
            return f"{head}…", f"host=={quoted(f'{head}*')}"
        return (stem, f"host=={quoted(f'{stem}*')}") if digits else (host.name, f"host=={quoted(host.name)}")

    return key


def _split(name: str) -> tuple[str, str]:
    match = _NUMBERED.fullmatch(name)
    return (match[1] or name, match[2]) if match else (name, "")


def quoted(text: str) -> str:
    """As a value of the filter language; what its quotes cannot hold becomes any character."""
    return f'"{text.replace(chr(34), "?")}"'
