"""Which alerts were open at a past instant: told from the events that raised and ended them."""

from typing import Any, Final

import apsw
import msgpack

from dimint.consumers.alerts.rows import OpenAlert

__all__ = ["alerts_at"]

LOOK_BACK_NS: Final = 90 * 86_400 * 1_000_000_000
"""An alert that was raised earlier than this before the instant is not found any more."""
_CHANGES: Final = """select host, kind, received_ns, fields from events
                     where timestamp between ? and ? and kind in ('alert.raised', 'alert.cleared', 'alert.told')
                     order by timestamp desc, host desc, n desc"""


def alerts_at(db: apsw.Connection, at_ns: int) -> list[OpenAlert]:
    """The alerts that were open then, the newest first. Inside the caller's transaction."""
    settled: set[tuple[str, str, str]] = set()
    told: set[tuple[str, str, str]] = set()
    found = []
    for host, kind, received_ns, packed in db.execute(_CHANGES, (max(0, at_ns - LOOK_BACK_NS), at_ns)):
        fields: dict[str, Any] = msgpack.unpackb(packed, strict_map_key=False)
        key = host, str(fields.get("rule", "")), str(fields.get("subject", ""))
        if key in settled:
            continue
        if kind == "alert.told":
            if fields.get("what") == "raised":
                told.add(key)
            continue
        settled.add(key)
        if kind == "alert.raised":
            since_ns = fields.get("since_ns")
            since_ns = min(max(0, since_ns), received_ns) if isinstance(since_ns, int) else received_ns
            severity, text = str(fields.get("severity", "")), str(fields.get("text", ""))
            found.append(OpenAlert(*key, severity, since_ns, received_ns, text, key in told))
    return sorted(found, key=lambda alert: (-alert.raised_ns, alert.host, alert.rule, alert.subject))
