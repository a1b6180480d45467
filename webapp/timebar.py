"""The time bar of every page: live, a moment, or a range; steps back and forward; a link for a ticket. [S]"""

from typing import Final

from dimint.webapp.asked import Asked
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.times import iso

__all__ = ["time_bar"]

_STEPS: Final = (("−1 d", -86_400), ("−1 h", -3600), ("−10 min", -600), ("+10 min", 600), ("+1 h", 3600), ("+1 d", 86_400))


def time_bar(path: str, asked: Asked, at_ms: int) -> Node:
    """`at_ms` is the moment that is shown, or the present one."""
    past = bool(asked.at or asked.to or asked.from_)
    live = node(
        "a", "● Live" if not past else "Live", href=path + _at(asked, ""), aria_current=None if past else "true", cls="golive"
    )
    steps: list[Child] = []
    for word, seconds in _STEPS:
        if seconds > 0 and not past:
            continue
        href = path + _at(asked, iso((at_ms // 1000 + seconds) * 1_000_000_000))
        steps.append(node("a", word, href=href, rel="next" if word == "+10 min" else "prev" if word == "−10 min" else None))
    return node(
        "div", live, node("span", *steps, cls="steps"), _form(path, asked), _ticket(path, asked) if past else None, cls="timebar"
    )


def _at(asked: Asked, at: str) -> str:
    return asked.query(at=at, from_="", to="", page=asked.page)


def _form(path: str, asked: Asked) -> Node:
    """At, or from and to; one of them is enough."""
    fields: list[Child] = []
    for name, value, hint in (("at", asked.at, "-2h"), ("from", asked.from_, "yesterday 14:00"), ("to", asked.to, "now")):
        box = node(
            "input", name=name, value=users_text(value, ""), placeholder=hint, autocomplete="off", size="19", maxlength="64"
        )
        fields.append(node("label", node("span", name), box))
    kept = {"filter": asked.filter.text, "view": asked.layout or "", "sort": ",".join(order.text for order in asked.sort),
            "group": asked.group or "", "kind": asked.kind, **dict(asked.more)}  # fmt: skip
    hidden = [node("input", type="hidden", name=name, value=users_text(value)) for name, value in kept.items() if value]
    return node("form", *fields, *hidden, node("button", "Go", type="submit"), method="get", action=path, cls="times")


def _ticket(path: str, asked: Asked) -> Node:
    """The address with times that mean the same tomorrow."""
    return node(
        "a",
        "link to this moment",
        href=path + asked.query(),
        cls="ticket",
        title="Put it into a ticket: it shows the same tomorrow",
    )
