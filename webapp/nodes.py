"""A page as a tree of nodes: the one place where text becomes HTML, and what the browser builds live parts from. [S]

A template makes nodes; `to_html` escapes every text and attribute value on the way out, `to_json` gives the same tree to
the browser's script, which builds elements and text nodes from it and never parses markup. So a name that somebody sent
stays text on both ways, and there is one template for the first page and for its updates.

JSON of a node: ``["div", {"class": "x"}, child, …]``; a text child is a string.
"""

import json
from collections.abc import Iterable
from html import escape
from typing import Final, NamedTuple, TypeAlias

from dimint.webapp.text import clean

__all__ = ["Child", "Node", "dump_json", "node", "to_html", "to_json", "users_text"]


class Node(NamedTuple):
    """An element. Tags and attribute names come from templates only, never from data."""

    tag: str
    attributes: dict[str, str]
    children: tuple["Node | str", ...]


Child: TypeAlias = Node | str | None

_VOID: Final = frozenset({"link", "meta", "input", "rect", "path", "hr", "br"})
_SHORTER: Final = {"cls": "class", "for_": "for"}


def node(tag: str, *children: Child, **attributes: str | None) -> Node:
    """An element; None children and attributes are left out, `cls` is `class`, and `_` in names is `-`."""
    named = {_SHORTER.get(name, name.replace("_", "-")): value for name, value in attributes.items() if value is not None}
    return Node(tag, named, tuple(child for child in children if child is not None and child != ""))


def users_text(text: str | None, missing: str = "–") -> str:
    """Hostile text as a page shows it (controls and bidi characters made visible), or the sign for a missing one."""
    return clean(text) if text else missing


def to_html(root: Node) -> str:
    """The tree as HTML, everything escaped."""
    out: list[str] = []
    _write(root, out)
    return "".join(out)


def to_json(roots: Iterable[Node]) -> list[object]:
    """The trees as JSON values."""
    return [[root.tag, root.attributes, *(child if isinstance(child, str) else to_json((child,))[0] for child in root.children)]
            for root in roots]  # fmt: skip


def dump_json(value: object) -> str:
    """Compact JSON in one line, as an event's data."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(element: Node, out: list[str]) -> None:
    out.append(f"<{element.tag}")
    out += [f' {name}="{escape(value)}"' for name, value in element.attributes.items()]
    out.append(">")
    for child in element.children:
        if isinstance(child, str):
            out.append(escape(child, quote=False))
        else:
            _write(child, out)
    if element.children or element.tag not in _VOID:
        out.append(f"</{element.tag}>")
    elif element.tag in ("rect", "path"):
        out[-1] = "/>"
