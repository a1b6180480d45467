"""The text of `/metrics`, made on the feed's reading thread; what did not change since the last scrape is not made again."""

from collections.abc import Mapping
from typing import NamedTuple

from dimint import __version__
from dimint.clock import Clock
from dimint.webapp.as_metrics import HostNow, Part, SystemNow, exposition, host_part, is_stale, system_part
from dimint.webapp.board import Board
from dimint.webapp.models import Host, Snapshot, Status
from dimint.webapp.positions import Positions, covers, read_positions

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
        self._counted = Positions("", ())
        """How far the tables had read the log when counters were given out last."""

    def text(self, board: Board, snapshot: Snapshot, ends: Mapping[int, int] | None = None) -> bytes:
        """The exposition of all hosts of this snapshot. `ends` is where the status topic ends, if the log can be asked."""
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
        parts = [kept.part for kept in self._kept.values()]
        return exposition([*parts, system_part(self._system(board, snapshot, ends))], __version__)

    def _system(self, board: Board, snapshot: Snapshot, ends: Mapping[int, int] | None) -> SystemNow:
        """Sums over the log. Tables that are being made anew and have read less of it than was counted before give none."""
        seen, read_to = read_positions(board.seen()), board.positions()
        lag = None if ends is None else {partition: max(0, end - read_to.get(partition, 0)) for partition, end in ends.items()}
        if seen.generation == self._counted.generation and not covers(seen, self._counted):
            return SystemNow({}, lag=lag)
        self._counted = seen
        hosts = {host.id: (host.name, _gpus(host)) for host in snapshot.hosts}
        return SystemNow(hosts, board.gpu_totals(), board.xid_counts(), lag)


def _gpus(host: Host) -> dict[str, int]:
    """UUID → index of the GPUs of its newest sample."""
    return {gpu.uuid: gpu.index for gpu in (host.newest.gpus if host.newest is not None else ()) if gpu.uuid}
