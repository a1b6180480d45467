"""The log as a tool: read any stretch of it again, and make of it what you like; docs/replay.md.

from dimint.replay import SqliteProjection, open_log, run
"""

from dimint.events import TOPICS
from dimint.replay.event import EventId, LoggedEvent, events_of
from dimint.replay.history import Difference, HistoryIndex, KeyChange
from dimint.replay.opening import open_log
from dimint.replay.positions import Positions, Range, format_position, format_positions, parse_bound, parse_positions
from dimint.replay.projection import Checkpoint, Projection, run
from dimint.replay.ranges import first_at, select
from dimint.replay.sqlite import SqliteProjection
from dimint.replay.stream import Item, PartitionState, Stream

__all__ = [
    "Checkpoint",
    "Difference",
    "EventId",
    "HistoryIndex",
    "Item",
    "KeyChange",
    "LoggedEvent",
    "PartitionState",
    "Positions",
    "Projection",
    "Range",
    "SqliteProjection",
    "Stream",
    "TOPICS",
    "events_of",
    "first_at",
    "format_position",
    "format_positions",
    "open_log",
    "parse_bound",
    "parse_positions",
    "run",
    "select",
]
