"""Events of hosts in words, with a symbol each: event lanes, what changed, terminal views. [S]"""

import re
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Any, Final

from dimint.consumers.rows import HostEvent
from dimint.webapp.history import History
from dimint.webapp.marks import Mark
from dimint.webapp.models import Host
from dimint.webapp.times import clock

__all__ = ["gpu_names", "mark_of", "marks_of", "told_text"]

_HOST_FIRST: Final = re.compile(r"\A`[^`]*`: ")

_SIGNS: Final = {
    "gpu.lost": ("✖", "bad"), "gpu.xid": ("▲", "warn"), "gpu.back": ("●", "ok"), "host.gap": ("◌", "wait"),
    "driver.changed": ("▲", "warn"), "clock.stepped": ("▲", "warn"), "alert.cleared": ("●", "ok"),
}  # fmt: skip


_RAISED: Final = {"critical": ("✖", "bad"), "warning": ("▲", "warn")}
"""An alert that was raised, by its severity; one that only informs has no sign."""


def told_text(text: str, where: str = "") -> str:
    """What people were told of an alert, as pages say it beside its host and GPU: without a chat's marks, and without the
    beginning that names host and GPU (`where`) once more."""
    plain = _HOST_FIRST.sub("", text, count=1).replace("`", "")
    if where and plain.startswith(where):
        plain = plain.removeprefix(where).lstrip(": ")
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def gpu_names(host: Host) -> dict[str, str]:
    """UUIDs of its GPUs and how they are called on the page."""
    gpus = host.newest.gpus if host.newest is not None else ()
    return {gpu.uuid: f"GPU {gpu.index}" for gpu in gpus if gpu.uuid}


def mark_of(event: HostEvent, names: Mapping[str, str]) -> Mark:
    """An event with its symbol and words. `names` as `gpu_names` gives them."""
    known = _RAISED.get(str(event.fields.get("severity"))) if event.kind == "alert.raised" else _SIGNS.get(event.kind)
    symbol, cls = known or ("·", "plain")
    return Mark(event.time_ns, symbol, cls, _words(event.kind, event.fields, names))


def marks_of(host: Host, events: Iterable[HostEvent], history: History, zone: tzinfo) -> list[Mark]:
    """What happened on a host in order of time: events of its agent, samples that came late, users that came and left."""
    names = gpu_names(host)
    found = [mark_of(event, names) for event in events]
    for first_ns, last_ns in history.backfilled:
        words = f"backfilled until {clock(last_ns, zone, day=history.needs_days)}: these samples came later, nobody saw them then"
        found.append(Mark(first_ns, "◌", "wait", words))
    for come in history.users:
        where = ", ".join(map(str, come.gpus))
        symbol, verb = ("→", "came to") if come.came else ("←", "left")
        found.append(Mark(come.time_ns, symbol, "plain", f"{come.user} {verb} GPU {where}"))
    return sorted(found)


def _words(kind: str, fields: Mapping[str, Any], names: Mapping[str, str]) -> str:
    uuid = fields.get("uuid")
    gpu = names.get(uuid, f"GPU {uuid[:12]}") if isinstance(uuid, str) and uuid else "a GPU"
    match kind:
        case "gpu.lost":
            return f"{gpu} {fields.get('state', 'lost')}"
        case "gpu.back":
            return f"{gpu} is back"
        case "gpu.xid":
            return f"{gpu}: XID {fields.get('xid', '?')}"
        case "driver.changed":
            return f"driver {fields.get('before') or 'none'} → {fields.get('now') or 'none'}"
        case "host.gap":
            return f"samples {fields.get('first_seq', '?')} to {fields.get('last_seq', '?')} are lost: {fields.get('reason', '')}"
        case "agent.started":
            unclean = "; the run before did not end cleanly" if fields.get("clean") is False else ""
            return f"agent {fields.get('version', '')} started{unclean}"
        case "agent.stopped":
            return "agent stopped"
        case "clock.stepped":
            return f"the clock was set by {fields.get('by_ms', '?')} ms"
        case "alert.raised" | "alert.cleared":
            state = "is over" if kind == "alert.cleared" else fields.get("severity", "raised")
            words = f": {told_text(text)}" if isinstance(text := fields.get("text"), str) and text else ""
            return f"alert {fields.get('rule', '?')} {state}{words}"
        case "alert.told":
            problem = f" could not be told: {fields['problem']}" if fields.get("problem") else " were told"
            return f"people{problem} of alert {fields.get('rule', '?')} by {fields.get('channel', '?')}"
    return kind.replace(".", " ")
