"""What changed in the last minutes, above the hosts of a live page: counts by kind, and the newest changes. [S]"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from dimint.webapp.asked import Asked
from dimint.webapp.filter import Filter
from dimint.webapp.models import Change, Host, Noticed, Recent
from dimint.webapp.nodes import Node, node, users_text
from dimint.webapp.parts import PageStyle, change_sign, host_link
from dimint.webapp.times import clock

__all__ = ["recent_panel"]

_LINES_MAX: Final = 6
_WORDS: Final = {
    "host.down": ("host down", "hosts down"), "gpu.lost": ("GPU lost", "GPUs lost"), "gpu.gone": ("GPU gone", "GPUs gone"),
    "driver": ("other driver", "other drivers"), "gpu.support": ("GPU support", "GPU support"),
    "mig": ("MIG change", "MIG changes"),
    "gpu.limit": ("power limit", "power limits"), "host.back": ("host back", "hosts back"), "gpu.back": ("GPU back", "GPUs back"),
    "host.new": ("new host", "new hosts"), "gpu.new": ("new GPU", "new GPUs"), "host.gone": ("host gone", "hosts gone"),
    "host.renamed": ("new name", "new names"), "gpu.state": ("GPU asleep or awake", "GPUs asleep or awake"),
    "user": ("user", "users"),
}  # fmt: skip
"""What one change of a kind and several of them are called; kinds stand in this order."""


def recent_panel(recent: Recent, hosts: Sequence[Host], filter_: Filter, style: PageStyle) -> Node | None:
    """A panel for these hosts, which are those that the filter leaves; None if nothing changed on them."""
    shown = {host.id: host for host in hosts}
    all_of_them = not filter_.text
    noticed = [one for one in recent.noticed if one.host_id in shown or (all_of_them and one.change.kind == "host.gone")]
    users = recent.users if all_of_them else ()
    counts = Counter(one.change.kind for one in noticed)
    counts["user"] = len(users)
    lines = [*_host_lines(noticed, shown, style), *map(_user_line, sorted(users, key=lambda change: change.rank))]
    if not lines:
        return None
    words = [f"{counts[kind]} {names[counts[kind] > 1]}" for kind, names in _WORDS.items() if counts[kind]]
    rest = len(lines) - _LINES_MAX
    link = f"/changes{Asked(filter=filter_, from_='-15m').query()}"
    return node(
        "div",
        node("h2", f"Changed since {clock(recent.since_ns, style.zone)}", " ", node("span", str(counts.total()), cls="count")),
        node("p", " · ".join(words), cls="fine"),
        node("ul", *lines[:_LINES_MAX]),
        node("a", f"and {rest} more" if rest > 0 else "all that changed and happened", href=link, cls="fine"),
        cls="panel recent",
    )


def _host_lines(noticed: Sequence[Noticed], shown: Mapping[str, Host], style: PageStyle) -> list[Node]:
    """The newest first, of those at one time the worst; alike ones of a host at one time are one line."""
    alike: dict[tuple[int, str, str], list[Change]] = {}
    for time_ns, host_id, change in noticed:
        alike.setdefault((time_ns, host_id, change.kind), []).append(change)
    lines = []
    for (time_ns, host_id, _), found in sorted(alike.items(), key=lambda item: (-item[0][0], item[1][0].rank)):
        change = found[0]
        host = shown.get(host_id)
        name = node("bdi", users_text(change.host)) if host is None else host_link(host, style, short=True)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        when = node("time", clock(time_ns, style.zone))
        lines.append(node("li", when, " ", change_sign(change), " ", name, " ", node("bdi", users_text(change.words + more))))
    return lines


def _user_line(change: Change) -> Node:
    return node("li", change_sign(change), " ", node("bdi", users_text(change.words)))
