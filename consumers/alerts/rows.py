"""Events of alerts → rows of the status tables: which alerts are open. [S]"""

from typing import NamedTuple

from dimint.batch import FIELDS, KIND, Event
from dimint.consumers.projection import DropAlert, MarkTold, PutAlert, Write
from dimint.limits import PROCESS_NAME_MAX_CHARS

__all__ = ["OpenAlert", "alert_write"]

_TEXT_MAX_CHARS = 4000


class OpenAlert(NamedTuple):
    """An alert that is not over. `told` = people were told, or nobody was to be told. Times in ns, UTC."""

    host: str
    rule: str
    subject: str
    severity: str
    since_ns: int
    raised_ns: int
    text: str
    told: bool


def alert_write(host: str, event: Event, received_ns: int) -> Write | None:
    """What an `alert.…` event does to the table of open alerts; None for nothing."""
    rule, subject, *more = event[FIELDS:]
    key = host, rule[:PROCESS_NAME_MAX_CHARS], subject[:PROCESS_NAME_MAX_CHARS]
    if event[KIND] == "alert.raised":
        severity, since_ns, text = more[:3]
        since_ns = min(max(0, since_ns), received_ns)
        return PutAlert(*key, severity[:PROCESS_NAME_MAX_CHARS], since_ns, received_ns, text[:_TEXT_MAX_CHARS])
    if event[KIND] == "alert.cleared":
        return DropAlert(*key)
    if event[KIND] == "alert.told" and more[0] == "raised":
        return MarkTold(*key)
    return None
