"""What `/states/` is asked for beside hosts and times: which fields, how many samples, how far apart, from where on. [S]"""

from collections.abc import Callable
from typing import Final, NamedTuple

from dimint.consumers.past import parse_cursor
from dimint.consumers.sealing import Key
from dimint.errors import BadCursor, BadQuery, BadTime
from dimint.limits import FETCH_MAX_SAMPLES
from dimint.webapp.as_json import CPU_FIELDS, GPU_FIELDS, Fields
from dimint.when import parse_span

__all__ = ["LIMIT", "StatesAsked", "read_states_asked"]

LIMIT: Final = 1_000
"""Samples of one answer over a range if nobody says how many."""
_TEXT_MAX_CHARS: Final = 1_000


class StatesAsked(NamedTuple):
    """`fields` None is all of them; `step_ns` 0 is every sample, None what the settings say; `after` is a cursor."""

    fields: Fields | None
    limit: int
    step_ns: int | None
    after: Key | None


def read_states_asked(get: Callable[[str], str | None], *, in_range: bool) -> StatesAsked:
    """From the words of an address; `in_range` = a range of time is asked for too. Raises BadQuery in one clear line."""
    limit, step, cursor = get("limit") or "", get("step") or "", get("cursor") or ""
    if not in_range and (limit or step or cursor):
        raise BadQuery("limit, step and cursor are for the samples of a range: say from, and to if it does not end now")
    if limit and not (limit.isascii() and limit.isdigit() and len(limit) <= 6 and 1 <= int(limit) <= FETCH_MAX_SAMPLES):
        raise BadQuery(f"limit is a number from 1 to {FETCH_MAX_SAMPLES}")
    try:
        step_ns = None if not step else 0 if step == "0" else parse_span(step)
        after = parse_cursor(cursor) if cursor else None
    except BadTime as error:
        raise BadQuery(f"step: {error}") from None
    except BadCursor as error:
        raise BadQuery(f"cursor: {error}") from None
    return StatesAsked(_read_fields(get("fields") or ""), int(limit or LIMIT), step_ns, after)


def _read_fields(text: str) -> Fields | None:
    names = {name.strip() for name in text[:_TEXT_MAX_CHARS].split(",")} - {""}
    if not names:
        return None
    if unknown := sorted(names - {*GPU_FIELDS, *CPU_FIELDS}):
        raise BadQuery(f"there is no field {unknown[0][:40]!r}; there are {', '.join((*GPU_FIELDS, *CPU_FIELDS))}")
    return Fields(tuple(name for name in GPU_FIELDS if name in names), tuple(name for name in CPU_FIELDS if name in names))
