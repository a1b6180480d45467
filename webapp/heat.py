"""Heat grids: what many GPUs did over time, or do now, as small squares of a few kinds. [S]

A grid is one SVG with one path a kind of square, so that 100 hosts with 8 GPUs and 60 minutes stay small. What is not known
has no square: the hatched ground shows. Kinds are `busy1` … `busy5` (by fifths of utilisation), `idle` (held and doing
nothing), `free` and `lost`.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Final, TypeAlias

from dimint.webapp.judge import use_of
from dimint.webapp.models import Cell, Gpu, Use
from dimint.webapp.nodes import Node, node

__all__ = ["GRID_LEGEND", "TILES_LEGEND", "Kind", "kind_of_cell", "kind_of_gpu", "squares"]

Kind: TypeAlias = str | None


def _legend(words: str) -> Node:
    keys = (
        ("free", "free"), ("idle", "held, idle"), ("busy1", "5 %"), ("busy2", "20 %"), ("busy3", "40 %"), ("busy4", "60 %"),
        ("busy5", "80 % and more"), ("lost", "✖ lost"), ("gap", "not known"),
    )  # fmt: skip
    found = [node("span", node("span", "", cls=f"key {kind}", aria_hidden="true"), word) for kind, word in keys]
    return node("p", node("span", words), *found, cls="legend keys")


GRID_LEGEND: Final = _legend("each line a GPU, the last hour from left to right:")
TILES_LEGEND: Final = _legend("each square a GPU, each column a host:")


_BUSY: Final = tuple(f"busy{min(5, 1 + util // 20)}" for util in range(101))
"""By utilisation."""


def _kind(util: int | None, use: Use) -> Kind:
    if use is Use.BUSY:
        return None if util is None else _BUSY[util] if 0 <= util <= 100 else _BUSY[0 if util < 0 else 100]
    return None if use is Use.UNKNOWN or use is Use.SPLIT else use.value


def kind_of_cell(cell: Cell) -> Kind:
    """The square of one minute; a GPU that was held and idle at its end, but worked before, counts as busy."""
    util, use, _ = cell
    if util is not None and util >= 5 and (use is Use.BUSY or use is Use.IDLE or use is Use.FREE):
        return _BUSY[util] if util <= 100 else _BUSY[100]
    return _kind(util, use)


def kind_of_gpu(gpu: Gpu) -> Kind:
    """The square of what a GPU does now."""
    return _kind(gpu.util_pct, use_of(gpu))


def squares(rows: Sequence[Sequence[Kind]], label: str, *, row_px: int, column_px: int | None = None) -> Node:
    """The grid; as wide as there is room, or `column_px` a column and without the hatched ground, where places may be empty.

    `label` says in words what it shows.
    """
    columns = max((len(row) for row in rows), default=0)
    paths: dict[str, list[str]] = {}
    for y, row in enumerate(rows):
        x = 0
        for kind, run in groupby(row):
            start, width = x, len(list(run))
            x += width
            if kind is not None:
                if column_px is None:
                    paths.setdefault(kind, []).append(f"M{start} {y}h{width}v.84h-{width}z")
                else:
                    paths.setdefault(kind, []).extend(f"M{at}.06 {y}.06h.86v.86h-.86z" for at in range(start, x))
    return node(
        "svg",
        *(node("path", cls=kind, d="".join(parts)) for kind, parts in sorted(paths.items())),
        cls="heat" if column_px is None else "heat bare",
        viewBox=f"0 0 {max(1, columns)} {max(1, len(rows))}",
        preserveAspectRatio="none",
        height=str(max(1, len(rows)) * row_px),
        width="100%" if column_px is None else str(columns * column_px),
        role="img",
        aria_label=label,
    )
