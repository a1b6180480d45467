"""Open alerts as pages and terminals show them: severity as symbol and word, hosts and GPUs by their names. [S]"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from dimint.webapp.happenings import gpu_names, told_text
from dimint.webapp.judge import Problem, Severity, problems, use_of
from dimint.webapp.models import Host, Snapshot, Status, Use

__all__ = ["XID_NS", "AlertLine", "alert_lines", "pressing", "what_is_wrong", "xid_problems"]

XID_NS: Final = 3600 * 1_000_000_000
"""An XID of a GPU is a problem for this long."""

_SIGNS: Final = {"critical": (0, "✖", "bad"), "warning": (1, "▲", "warn"), "info": (2, "·", "plain")}
_UNKNOWN: Final = (3, "·", "plain")


class AlertLine(NamedTuple):
    """One open alert. `host` is None if its host is not among those shown; `where` is `GPU 3`, or empty for the host itself;
    `words` is what people were told, as it reads behind these."""

    symbol: str
    cls: str
    name: str
    host: Host | None
    where: str
    alert: OpenAlert
    words: str


def alert_lines(alerts: Iterable[OpenAlert], hosts: Iterable[Host], *, strangers: bool = False) -> list[AlertLine]:
    """The alerts of these hosts, the worst first, then the newest; with `strangers` also those of hosts not among them."""
    by_id = {host.id: host for host in hosts}
    gpus: dict[str, dict[str, str]] = {}
    found = []
    for alert in alerts:
        host = by_id.get(alert.host)
        if host is None and not strangers:
            continue
        if host is not None and alert.host not in gpus:
            gpus[alert.host] = gpu_names(host)
        where = gpus.get(alert.host, {}).get(alert.subject, alert.subject[:12])
        _, symbol, cls = _SIGNS.get(alert.severity, _UNKNOWN)
        name = host.name if host is not None else alert.host
        found.append(AlertLine(symbol, cls, name, host, where, alert, told_text(alert.text, where)))
    return sorted(found, key=lambda line: (_rank(line), -line.alert.raised_ns, line.name, line.where, line.alert.rule))


def pressing(lines: Iterable[AlertLine]) -> list[AlertLine]:
    """Those that somebody should act on: an alert that only informs is no problem."""
    return [line for line in lines if line.alert.severity != "info"]


def xid_problems(events: Iterable[HostEvent], hosts: Iterable[Host], alerts: Sequence[OpenAlert], now_ns: int) -> list[Problem]:
    """The XIDs of the last hour, a line for each GPU and number, the newest first, without GPUs whose XIDs are an open alert."""
    by_id = {host.id: host for host in hosts}
    told = {(alert.host, alert.subject) for alert in alerts if "xid" in alert.rule.casefold()}
    counts: dict[tuple[str, str, Any], list[int]] = {}
    for event in events:
        uuid = str(event.fields.get("uuid") or "")
        if event.host in by_id and event.time_ns > now_ns - XID_NS and (event.host, uuid) not in told:
            counts.setdefault((event.host, uuid, event.fields.get("xid")), []).append(event.time_ns)
    found = []
    for (host_id, uuid, number), times in sorted(counts.items(), key=lambda item: -max(item[1])):
        host = by_id[host_id]
        samples = host.newest.gpus if host.newest is not None else ()
        gpus = tuple(gpu.index for gpu in samples if gpu.uuid and gpu.uuid == uuid)
        often = f", {len(times)} times" if len(times) > 1 else ""
        minutes = max(0, now_ns - max(times)) // 60_000_000_000
        found.append(Problem(Severity.WARN, host, gpus, f"XID {number}{often}, {minutes} min ago"))
    return found


def what_is_wrong(snapshot: Snapshot, hosts: Sequence[Host], now_ns: int) -> tuple[list[AlertLine], list[Problem]]:
    """What somebody should act on: the open alerts of these hosts, and what is wrong besides, the worst first.

    A host that is down, or a GPU that is gone, is told once: by the alert if there is one.
    """
    alerts = pressing(alert_lines(snapshot.alerts, hosts))
    told = {(line.alert.host, line.alert.subject) for line in alerts}

    def is_new(problem: Problem) -> bool:
        host = problem.host
        if not problem.gpus:
            return host.status is Status.RUNNING or (host.id, "") not in told
        gpus = {gpu.index: gpu for gpu in (host.newest.gpus if host.newest is not None else ())}
        gone = [gpus[index] for index in problem.gpus if index in gpus and use_of(gpus[index]) is Use.LOST]
        return len(gone) < len(problem.gpus) or any((host.id, gpu.uuid) not in told for gpu in gone)

    found = [*xid_problems(snapshot.xids, hosts, snapshot.alerts, now_ns), *problems(hosts, now_ns)]
    found.sort(key=lambda problem: -problem.severity)
    return alerts, [problem for problem in found if is_new(problem)]


def _rank(line: AlertLine) -> int:
    return _SIGNS.get(line.alert.severity, _UNKNOWN)[0]
