"""Where things stand below the root node. [S]

::

    ROOT/generation           32 hex digits, made last and once: emptied servers are another registry
    ROOT/members/ROLE         its version rises with every member that joins
    ROOT/members/ROLE/ID      ephemeral: info as JSON, and on a second line the process that made it (owner.py)
    ROOT/elections/NAME/…-N   ephemeral, one a candidate; the lowest N leads, and its czxid is the term
    ROOT/values/PATH          value (`/` in the path is `,` in the name); version 1 here is version 0 there
    ROOT/changes              set with every change that the lists of children do not show
"""

import re
from collections.abc import Iterable
from typing import Final

from dimint.registry.paths import USES_VALUES

__all__ = ["Layout", "first_in_line", "info_of", "mark_of", "with_mark"]

_IN_LINE: Final = re.compile(r"[0-9a-f]{32}-(\d{10})")


class Layout:
    """Paths of one system."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.generation = f"{root}/generation"
        self.members = f"{root}/members"
        self.elections = f"{root}/elections"
        self.values = f"{root}/values"
        self.changes = f"{root}/changes"

    @property
    def lasting(self) -> Iterable[str]:
        """All that must be there before the generation, parents first."""
        parts = self.root.split("/")
        yield from ("/".join(parts[:end]) for end in range(2, len(parts) + 1))
        yield from (self.members, self.elections, self.values, self.changes)
        yield from (self.role(role) for role in sorted(USES_VALUES))

    def role(self, role: str) -> str:
        return f"{self.members}/{role}"

    def member(self, role: str, member_id: str) -> str:
        return f"{self.members}/{role}/{member_id}"

    def election(self, name: str) -> str:
        return f"{self.elections}/{name}"

    def value(self, path: str) -> str:
        return f"{self.values}/{path.replace('/', ',')}"


def with_mark(info: bytes, mark: str) -> bytes:
    """What a member's node holds. The info has no line ends: JSON escapes them."""
    return info + b"\n" + mark.encode()


def info_of(content: bytes) -> bytes:
    """A member's info."""
    return content.partition(b"\n")[0]


def mark_of(content: bytes) -> str:
    """The process that made a member's node."""
    return content.partition(b"\n")[2].decode("ascii", "replace")


def first_in_line(names: Iterable[str], prefix: str = "") -> str | None:
    """The candidate's node with the lowest number, of those with the prefix; None if there is none."""
    waiting = [(int(found[1]), name) for name in names if name.startswith(prefix) and (found := _IN_LINE.fullmatch(name))]
    return min(waiting)[1] if waiting else None
