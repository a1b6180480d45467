"""The log as a tool: read any stretch of it again, and make of it what you like; docs/replay.md.

from dimint.replay import SqliteProjection, open_log, run
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dimint.events import TOPICS
    from dimint.replay.event import EventId, LoggedEvent, events_of
    from dimint.replay.history import Cut, Difference, HistoryIndex, KeyChange
    from dimint.replay.opening import open_log
    from dimint.replay.positions import Positions, Range, format_position, format_positions, parse_bound, parse_positions
    from dimint.replay.projection import Checkpoint, Projection, run
    from dimint.replay.ranges import first_at, select
    from dimint.replay.readers import KnownReader, known_reader
    from dimint.replay.sqlite import SqliteProjection
    from dimint.replay.stream import Item, PartitionState, Stream
else:
    from dimint.on_demand import names_on_demand

    __getattr__ = names_on_demand(
        __name__,
        {
            "dimint.events": "TOPICS",
            "dimint.replay.event": "EventId LoggedEvent events_of",
            "dimint.replay.history": "Cut Difference HistoryIndex KeyChange",
            "dimint.replay.opening": "open_log",
            "dimint.replay.positions": "Positions Range format_position format_positions parse_bound parse_positions",
            "dimint.replay.projection": "Checkpoint Projection run",
            "dimint.replay.ranges": "first_at select",
            "dimint.replay.readers": "KnownReader known_reader",
            "dimint.replay.sqlite": "SqliteProjection",
            "dimint.replay.stream": "Item PartitionState Stream",
        },
    )

__all__ = [
    "Checkpoint",
    "Cut",
    "Difference",
    "EventId",
    "HistoryIndex",
    "Item",
    "KeyChange",
    "KnownReader",
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
    "known_reader",
    "open_log",
    "parse_bound",
    "parse_positions",
    "run",
    "select",
]
