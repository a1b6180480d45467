"""The choice of what time a host's charts show: spans that end now or at the moment shown, steps back and forward. [S]"""

from typing import Final, NamedTuple

from dimint.errors import BadQuery, BadTime
from dimint.webapp.nodes import Node, node
from dimint.webapp.times import iso
from dimint.when import parse_span

__all__ = ["DEFAULT_SPAN", "Range", "range_nav", "read_span"]

DEFAULT_SPAN: Final = "1h"
_SPANS: Final = ("15m", "1h", "6h", "1d", "1w", "30d", "365d")
_WORDS: Final = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "1d": "1 day", "1w": "1 week", "30d": "30 days", "365d": "1 year"}
_SPAN_MAX_NS: Final = 20 * 366 * 86_400 * 1_000_000_000
_LEAST_NS: Final = 10 * 1_000_000_000


class Range(NamedTuple):
    """What charts show. `live` ranges end at the present and go on with it."""

    from_ns: int
    to_ns: int
    live: bool

    @property
    def span_ns(self) -> int:
        return self.to_ns - self.from_ns


def read_span(text: str | None) -> int:
    """The length that `last=` asks for, ns. Raises BadQuery."""
    try:
        span_ns = parse_span(text or DEFAULT_SPAN)
    except BadTime as error:
        raise BadQuery(f"last: {error}") from None
    if not _LEAST_NS <= span_ns <= _SPAN_MAX_NS:
        raise BadQuery("last is between 10s and 20 years")
    return span_ns


def range_nav(path: str, shown: Range, now_ns: int) -> Node:
    """Links, so that it works without a script; the script zooms by dragging over a chart, with the same addresses."""
    links = []
    for text in _SPANS:
        span_ns = parse_span(text)
        href = f"{path}?last={text}" if shown.live else _fixed(path, shown.to_ns - span_ns, shown.to_ns)
        current = "true" if abs(span_ns - shown.span_ns) * 100 < span_ns else None
        links.append(node("a", _WORDS[text], href=href, aria_current=current))
    half = shown.span_ns // 2
    earlier = _fixed(path, shown.from_ns - half, shown.to_ns - half)
    out = _fixed(path, shown.from_ns - half, min(now_ns, shown.to_ns + half))
    later = _fixed(path, shown.from_ns + half, min(now_ns, shown.to_ns + half))
    moves = [
        node("a", "◂ earlier", href=earlier),
        None if shown.live or shown.to_ns >= now_ns else node("a", "later ▸", href=later),
        node("a", "zoom out", href=out, id="zoomout"),
    ]
    hint = node("span", "drag over a chart to zoom in", cls="fine zoomhint", hidden="")
    return node(
        "nav", node("span", *links, cls="steps"), node("span", *moves, cls="steps"), hint, cls="ranges", aria_label="Range"
    )


def _fixed(path: str, from_ns: int, to_ns: int) -> str:
    return f"{path}?from={iso(max(0, from_ns))}&to={iso(to_ns)}"
