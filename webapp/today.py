"""GPU time per user since the day began: what stands beside who holds GPUs now."""

from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final, Protocol

from dimint.consumers.accounting import Accounting, Question
from dimint.webapp.models import UserDay

__all__ = ["AccountedTables", "FIRST_S", "TODAY_S", "day_start", "read_day"]

TODAY_S: Final = 60.0
"""GPU time of today is added up this often at most."""
FIRST_S: Final = 5.0
"""And this often while there is nothing yet."""
_HOUR_NS: Final = 3600 * 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class AccountedTables(Protocol):
    """What is needed of `dimint.consumers.reading.StatusReader`."""

    def accounting(self, asked: Question, now_ns: int) -> Accounting: ...


def day_start(at_ns: int, zone: tzinfo) -> int:
    """When the day that this time is in began in the zone, ns UTC."""
    local = (_EPOCH + timedelta(microseconds=at_ns // 1000)).astimezone(zone)
    midnight = datetime.combine(local.date(), time(), tzinfo=zone)
    return max(0, (midnight - _EPOCH) // timedelta(microseconds=1) * 1000)


def read_day(reader: AccountedTables, at_ns: int, zone: tzinfo) -> tuple[UserDay, ...]:
    """GPU time of each user from the day's beginning to `at_ns`, in whole hours, the most first."""
    from_ns = day_start(at_ns, zone) // _HOUR_NS * _HOUR_NS
    to_ns = -(-(at_ns + 1) // _HOUR_NS) * _HOUR_NS
    found = reader.accounting(Question(from_ns, to_ns, ("user",), "full"), at_ns)
    return tuple(UserDay(one.user, one.held_us, one.wasted_us) for one in found.accounts if one.user is not None)
