"""The text of `/metrics`, made on the feed's reading thread; what did not change since the last scrape is not made again."""

from typing import NamedTuple

from dimint import __version__
from dimint.clock import Clock
from dimint.webapp.as_metrics import HostNow, Part, exposition, host_part, is_stale
from dimint.webapp.board import Board
from dimint.webapp.models import Host, Snapshot, Status

__all__ = ["Metrics"]


class _Kept(NamedTuple):
    """The lines of one host with what they were made of."""

    host: Host
    now: HostNow
    stale: bool
    part: Part


class Metrics:
    """Belongs to the reading thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def text(self, board: Board, snapshot: Snapshot) -> bytes:
        """The exposition of all hosts of this snapshot."""
        now_ns = self._clock.time_ns()
        before = self._kept
        changed = [host for host in snapshot.hosts if host.id not in before or before[host.id].host is not host]
        newest = board.newest(host.id for host in changed)
        self._kept = {}
        for host in snapshot.hosts:
            kept = before.get(host.id)
            if host.id in newest:
                now = HostNow(newest[host.id][0], host.name, newest[host.id][1], host.status is Status.RUNNING)
            elif kept is not None:
                now = kept.now
            else:
                continue  # the tables were replaced since the snapshot was made
            stale = is_stale(now, now_ns)
            if kept is None or kept.now is not now or kept.stale is not stale:
                kept = _Kept(host, now, stale, host_part(now, stale=stale))
            self._kept[host.id] = kept
        return exposition((kept.part for kept in self._kept.values()), __version__)
