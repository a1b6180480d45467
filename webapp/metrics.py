"""The text of `/metrics`: read on the feed's thread, written beside it; what did not change since the last scrape is not."""

from collections.abc import Mapping, Sequence
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


class Read(NamedTuple):
    """What one scrape is made of: each host with its newest sample where that is another one than at the last scrape."""

    hosts: Sequence[tuple[Host, HostNow | None]]
    system: SystemNow


class Metrics:
    """One scrape at a time: `read` on the reading thread, which is free again in some ms, then `text` on any other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._counted = Positions("", ())
        """How far the tables had read the log when counters were given out last."""

    def read(self, board: Board, snapshot: Snapshot, ends: Mapping[int, int] | None = None) -> Read:
        """What is new of all hosts of this snapshot. `ends` is where the status topic ends, if the log can be asked."""
        kept = self._kept
        newest = board.newest(host.id for host in snapshot.hosts if host.id not in kept or kept[host.id].host is not host)
        hosts = []
        for host in snapshot.hosts:
            row, stored = newest.get(host.id, (None, None))
            hosts.append((host, None if row is None else HostNow(row, host.name, stored, host.status is Status.RUNNING)))
        return Read(hosts, self._system(board, snapshot, ends))

    def text(self, read: Read) -> bytes:
        """The exposition."""
        now_ns = self._clock.time_ns()
        before = self._kept
        self._kept = {}
        for host, new in read.hosts:
            kept = before.get(host.id)
            if new is not None:
                now = new
            elif kept is not None:
                now = kept.now
            else:
                continue  # the tables were replaced since the snapshot was made
            stale = is_stale(now, now_ns)
            if kept is None or kept.now is not now or kept.stale is not stale:
                kept = _Kept(host, now, stale, host_part(now, stale=stale))
            self._kept[host.id] = kept
        parts = [kept.part for kept in self._kept.values()]
        return exposition([*parts, system_part(read.system)], __version__)

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
