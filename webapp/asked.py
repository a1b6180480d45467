"""What the address of a page, a terminal view or an answer in JSON asks for: which hosts, in which order and layout. [S]"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import urlencode

from dimint.errors import BadQuery
from dimint.webapp.fields import FIELDS, field_name, subjects
from dimint.webapp.filter import Filter, parse_filter
from dimint.webapp.models import Host

__all__ = ["LAYOUTS", "Asked", "Layout", "Order", "layout_for", "read_asked", "read_page", "selected"]

Layout: TypeAlias = Literal["cards", "rows", "grid", "tiles", "gpus"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)
ROWS_MAX: Final = 40
GRID_MAX: Final = 400
_PAGE_MAX_DIGITS: Final = 9
_ORDERS_MAX: Final = 8
_GROUP_MAX_CHARS: Final = 64
_KIND_MAX_CHARS: Final = 64


class Order(NamedTuple):
    """One key of an order: a field's name, and whether the highest comes first."""

    field: str
    down: bool

    @property
    def text(self) -> str:
        return f"-{self.field}" if self.down else self.field


@dataclass(frozen=True, slots=True)
class Asked:
    """`page` counts from 1, 0 is all. `layout` is None where the number of hosts decides. `at` is in the words of the address;
    `kind` is the kind of event that a log shows, `more` words of a single page that its other addresses keep."""

    page: int = 0
    layout: Layout | None = None
    filter: Filter = field(default_factory=lambda: parse_filter(""))
    sort: tuple[Order, ...] = ()
    group: str | None = None
    at: str = ""
    from_: str = ""
    to: str = ""
    kind: str = ""
    more: tuple[tuple[str, str], ...] = ()

    def query(self, **changes: Any) -> str:
        """The address's query of the same view, with changes, from its `?` on; empty if it would be empty."""
        other = replace(self, **changes)
        words = {
            "page": str(other.page) if other.page else "",
            "view": other.layout or "",
            "filter": other.filter.text,
            "sort": ",".join(order.text for order in other.sort),
            "group": other.group or "",
            "at": other.at,
            "from": other.from_,
            "to": other.to,
            "kind": other.kind,
            **dict(other.more),
        }
        text = urlencode({name: word for name, word in words.items() if word}, errors="backslashreplace")
        return f"?{text}" if text else ""

    @property
    def times(self) -> tuple[tuple[str, str], ...]:
        """The words for a time that are given."""
        return tuple((name, word) for name, word in (("at", self.at), ("from", self.from_), ("to", self.to)) if word)

    @property
    def narrows(self) -> bool:
        """Whether the hosts shown, or their order, depend on what they do at the moment."""
        return self.filter.test is not None or bool(self.sort)


def read_page(text: str | None) -> int | None:
    """A page number as asked for: none, empty or unreadable = 0 (all); None if it is negative."""
    plain = (text or "").strip()
    digits = plain.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _PAGE_MAX_DIGITS:
        return 0
    return None if plain.startswith("-") and int(digits) else int(digits)


def read_asked(get: Callable[[str], str | None]) -> Asked:
    """From the words of an address; `get` gives the value of a name, or None. Raises BadQuery in one clear line."""
    view = get("view") or None
    if view is not None and view not in (*LAYOUTS, "auto"):
        raise BadQuery(f"there is no view {view[:40]!r}; there are {', '.join(LAYOUTS)}")
    group = get("group") or None
    if group is not None and len(group) > _GROUP_MAX_CHARS:
        raise BadQuery("group is the name of a tag, name or model")
    return Asked(
        page=read_page(get("page")) or 0,
        layout=next((layout for layout in LAYOUTS if layout == view), None),
        filter=parse_filter(get("filter") or ""),
        sort=_read_sort(get("sort") or ""),
        group=group,
        at=(get("at") or "").strip(),
        from_=(get("from") or "").strip(),
        to=(get("to") or "").strip(),
        kind=(get("kind") or "").strip()[:_KIND_MAX_CHARS],
    )


def layout_for(hosts: int) -> Layout:
    """Cards for one, rows for ten, a grid for a hundred, tiles for a thousand."""
    return "cards" if hosts <= 1 else "rows" if hosts <= ROWS_MAX else "grid" if hosts <= GRID_MAX else "tiles"


def selected(hosts: Sequence[Host], asked: Asked, now_ns: int) -> Sequence[Host]:
    """The hosts that the filter leaves, in the order asked for; the given order where nothing is asked."""
    found = hosts if asked.filter.test is None else [host for host in hosts if asked.filter.matches(host, now_ns)]
    for order in reversed(asked.sort):
        found = _sorted(found, order, now_ns)
    return found


def _read_sort(text: str) -> tuple[Order, ...]:
    """`-gpu.util,host`: fields of the filter language, `-` for the highest first."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if len(words) > _ORDERS_MAX:
        raise BadQuery(f"an order has at most {_ORDERS_MAX} fields")
    return tuple(Order(field_name(word.lstrip("-+")), word.startswith("-")) for word in words)


def _sorted(hosts: Sequence[Host], order: Order, now_ns: int) -> list[Host]:
    """Stable; what is not known comes last, either way."""
    ranks = [(host, _rank(host, order, now_ns)) for host in hosts]
    known = [(host, rank) for host, rank in ranks if rank is not None]
    known.sort(key=lambda pair: pair[1], reverse=order.down)
    return [host for host, _ in known] + [host for host, rank in ranks if rank is None]


def _rank(host: Host, order: Order, now_ns: int) -> Any:
    """What a host is compared by: its highest value going down, its lowest going up; of yes or no the number of yes."""
    read = FIELDS[order.field].read
    values = [value for subject in subjects(host, now_ns) if (value := read(subject)) is not None]
    if FIELDS[order.field].kind == "flag":
        return sum(map(bool, values))
    flat: list[Any] = []
    for value in values:
        if isinstance(value, Sequence):
            flat += [str(text).casefold() for text in value]
        else:
            flat.append(value)
    if not flat:
        return None
    return max(flat) if order.down else min(flat)
