"""What changed in the last minutes, noticed by looking at the hosts again and again. [S]

Two instants compared (changed.py) ask for all hosts of a quarter of an hour ago, which is too dear for a page that is
asked for all the time. So whoever follows the hosts keeps how each stood when it was last looked at, and every change with
the time when it was noticed. It knows nothing from before its start, and says since when it looks.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from dimint.webapp.changed import Standing, held, host_changes, standing_of, user_changes
from dimint.webapp.models import NOTHING_NOTICED, Change, Host, Noticed, Recent, Status

__all__ = ["LOOK_NS", "RECENT_NS", "Lookout"]

RECENT_NS: Final = 15 * 60_000_000_000
LOOK_NS: Final = 30_000_000_000
"""Time between two looks. One costs some 20 µs a host that reported since the last one, and its GPUs are modelled for it."""
_NOTICED_MAX: Final = 5_000


class Lookout:
    """Belongs to whoever follows the hosts."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Host, Standing]] = {}
        self._noticed: deque[Noticed] = deque(maxlen=_NOTICED_MAX)
        self._holding: deque[tuple[int, Counter[str]]] = deque()
        self._recent = NOTHING_NOTICED

    def look(self, hosts: Iterable[Host], now_ns: int) -> Recent:
        """What changed until now; what the last look said if that was less than LOOK_NS ago."""
        if self._holding and 0 <= now_ns - self._holding[-1][0] < LOOK_NS:
            return self._recent
        is_first = not self._holding
        seen: dict[str, tuple[Host, Standing]] = {}
        for host in hosts:
            before = self._seen.get(host.id)
            if before is not None and before[0] is host:
                seen[host.id] = before
                continue
            now = standing_of(host)
            seen[host.id] = host, now
            if before is not None:
                was = before[1]
                # it has not been heard since this program started: whether it was down before is not known
                was = was._replace(status=now.status) if was.status is Status.WAITING else was
                self._notice(host.id, host_changes(was, now), now_ns)
            elif not is_first:
                self._notice(host.id, host_changes(None, now), now_ns)
        for host_id in self._seen.keys() - seen.keys():
            self._notice(host_id, host_changes(self._seen[host_id][1], None), now_ns)
        self._seen = seen
        self._holding.append((now_ns, held(standing for _, standing in seen.values())))
        self._let_go(now_ns - RECENT_NS)
        since_ns, holding = self._holding[0]
        users = user_changes(holding, self._holding[-1][1])
        self._recent = Recent(max(since_ns, now_ns - RECENT_NS), tuple(self._noticed), tuple(users))
        return self._recent

    def _notice(self, host_id: str, found: Iterable[Change], now_ns: int) -> None:
        self._noticed += (Noticed(now_ns, host_id, change) for change in found)

    def _let_go(self, before_ns: int) -> None:
        while self._noticed and self._noticed[0].time_ns < before_ns:
            self._noticed.popleft()
        while len(self._holding) > 1 and self._holding[1][0] <= before_ns:
            self._holding.popleft()
