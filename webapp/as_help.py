"""What stands at the foot of every page: keys, the filter language, and where programs ask. [S]"""

from collections.abc import Iterable
from typing import Final

from dimint.webapp.asked import Asked
from dimint.webapp.fields import FIELDS
from dimint.webapp.filter import parse_filter
from dimint.webapp.nodes import Node, node

__all__ = ["FOOT"]

_KEYS: Final = (
    ("/", "to the filter; Escape clears it"),
    ("[ ]", "ten minutes back and forward"),
    ("l", "to the present"),
    ("← →", "on a chart: the cursor; + and − zoom"),
)
_EXAMPLES: Final = (
    "gpu.util<5 and held>30m",
    "user==alice or user==bob",
    "tag:rack01 and not gpu.lost",
    "gpu.name~h100 gpu.free",
    "mem>=90%",
)
_LINKS: Final = (
    ("/openapi.json", "description of the API"),
    ("/metrics", "metrics for Prometheus"),
    ("/accounting/?format=csv", "GPU-hours as CSV"),
)


def _terms(rows: Iterable[tuple[str, str]]) -> Node:
    return node("dl", *(node("div", node("dt", node("code", word)), node("dd", text)) for word, text in rows))


def _foot() -> Node:
    fields = sorted(FIELDS.items(), key=lambda item: (not item[1].about_gpu, item[0]))
    language = node(
        "p",
        "Words are looked for in the names of hosts, users, programs and GPUs. A term is a field, one of == != < <= > >= ~ "
        "(contains) !~, and a value; a yes-or-no field stands alone. Terms are joined by and, or, not and parentheses. "
        "A * in text is any text.",
    )
    links = [node("a", node("code", text), href=f"/{Asked(filter=parse_filter(text)).query()}") for text in _EXAMPLES]
    examples = node("p", *[part for link in links for part in (link, " · ")][:-1])
    return node(
        "footer",
        node(
            "details",
            node("summary", "Keys and filter"),
            node("h2", "Keys"),
            _terms(_KEYS),
            node("h2", "Filter"),
            language,
            examples,
            _terms((name, field.help) for name, field in fields),
        ),
        node("nav", *(node("a", word, href=href) for href, word in _LINKS), aria_label="For programs"),
        cls="foot",
    )


FOOT: Final = _foot()
