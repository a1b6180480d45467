"""Who uses GPUs: how many each user holds now, how many of these do nothing, and GPU-hours of the day. [S]"""

from collections import Counter
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from dimint.webapp.groups import quoted
from dimint.webapp.judge import holder, use_of
from dimint.webapp.models import Host, Status, Use, UserDay
from dimint.webapp.nodes import Node, node, users_text
from dimint.webapp.parts import PageStyle

__all__ = ["filter_of", "held_now", "hours", "users_panel"]

_USERS_MAX: Final = 6
_HOUR_US: Final = 3600 * 1_000_000


def held_now(hosts: Iterable[Host]) -> tuple[Counter[str], Counter[str]]:
    """User → GPUs that he holds, and how many of them do nothing."""
    held: Counter[str] = Counter()
    idle: Counter[str] = Counter()
    for host in hosts:
        for gpu in host.newest.gpus if host.newest is not None and host.status is Status.RUNNING else ():
            name = holder(gpu)
            if name is not None:
                held[name] += 1
                idle[name] += use_of(gpu) is Use.IDLE
    return held, idle


def hours(time_us: int) -> str:
    """GPU-hours, shorter the more there are."""
    value = time_us / _HOUR_US
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def filter_of(user: str) -> str:
    """The filter that leaves the hosts where this user is, as it stands in an address."""
    return quote(f"user=={quoted(user)}", safe="", errors="backslashreplace")


def users_panel(hosts: Iterable[Host], today: Iterable[UserDay], style: PageStyle) -> Node | None:
    """A line a user: GPUs now, of these idle, GPU-hours of today and what of them was wasted; None if there is nobody.

    Without `today`, which is of all hosts, only what is held now.
    """
    held, idle = held_now(hosts)
    day = {one.user: one for one in today}
    users = sorted({*held, *day}, key=lambda name: (-held[name], -(day[name].held_us if name in day else 0), name))
    if not users:
        return None
    rows = []
    for name in users[:_USERS_MAX]:
        one = day.get(name)
        link = f"/?filter={filter_of(name)}{style.link.replace('?', '&')}"
        cells = [
            node("th", node("a", node("bdi", users_text(name)), href=link), scope="row"),
            node("td", str(held[name]), cls="right"),
            node("td", str(idle[name]) if idle[name] else "", cls="right warn" if idle[name] else "right"),
        ]
        if day:
            cells += [
                node("td", hours(one.held_us) if one is not None else "", cls="right"),
                node("td", hours(one.wasted_us) if one is not None and one.wasted_us >= _HOUR_US // 10 else "", cls="right"),
            ]
        rows.append(node("tr", *cells))
    heads = [("user", None), ("GPUs", "right"), ("idle", "right")]
    heads += [("GPU-h that day" if style.link else "GPU-h today", "right"), ("wasted", "right")] if day else []
    head = node("thead", node("tr", *(node("th", word, scope="col", cls=cls) for word, cls in heads)))
    rest = len(users) - _USERS_MAX
    times = style.link.replace("at=", "to=")
    more = node("a", f"and {rest} more" if rest > 0 else "all users", href=f"/users{times}", cls="fine")
    title = node("h2", "Users ", node("span", str(len(users)), cls="count"))
    return node("div", title, node("table", head, node("tbody", *rows)), more, cls="panel usersnow")
