"""A host's charts as JSON: what the browser's script draws, and what it marks on them. [S]"""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from dimint.webapp.history import History, Series
from dimint.webapp.marks import Mark
from dimint.webapp.panels import panels_of
from dimint.webapp.text import clean

__all__ = ["plots"]

_NS = 1_000_000_000
_PLAIN = "plain"


def plots(history: History, marks: Sequence[Mark], zone: tzinfo) -> dict[str, Any]:
    """Times are seconds since 1970, UTC; the value number i of a series is that of the step from `start` + i × `step` on; of the
    steps in `gaps` (first, one behind the last) nothing is known.

    `zone` is the server's zone by its name, None where it has none that browsers know; `offset` is what it is ahead of UTC.
    """
    here = datetime.fromtimestamp(history.to_ns // _NS, UTC).astimezone(zone)
    offset = here.utcoffset()
    return {
        "start": history.from_ns / _NS,
        "step": history.step_ns / _NS,
        "steps": history.steps,
        "gaps": history.gaps,
        "made_of": history.made_of // _NS,
        "zone": getattr(zone, "key", None) or ("UTC" if zone is UTC else None),
        "offset": 0 if offset is None else int(offset.total_seconds()),
        "charts": [
            {"id": panel.id, "title": panel.title, "unit": panel.unit, "top": panel.top, "stacked": panel.stacked,
             "series": [_series(one) for one in panel.series]}
            for panel in panels_of(history)
        ],
        "marks": [
            {"at": mark.time_ns / _NS, "kind": mark.cls, "sign": mark.symbol, "words": clean(mark.words)}
            for mark in marks if mark.cls != _PLAIN
        ],
    }  # fmt: skip


def _series(one: Series) -> dict[str, Any]:
    """`low` and `high` only where a step has several samples."""
    told: dict[str, Any] = {"name": clean(one.name), "values": one.values}
    return told | ({"low": one.low, "high": one.high} if one.low else {})
