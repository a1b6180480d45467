"""Hostile text made showable: what a terminal or a page may print, and how many columns it takes. [S]

Host, user, process and GPU names are whatever somebody on the network sent. `clean` leaves no character that moves the
cursor, changes the direction of text, hides or stacks up; `fit` gives exactly the columns asked for.
"""

import unicodedata
from functools import lru_cache

__all__ = ["MISSING", "SIMULATED", "clean", "clean_long", "counted", "cut", "display_name", "fit", "width"]

MISSING = "-"
"""What stands where a value is not available."""

SIMULATED = " (sim)"
"""Ends the shown name of a simulated host; `display_name` keeps real hosts from ending so."""

_ELLIPSIS = "…"
_MARKS_MAX = 2
"""Combining marks kept on one character; more would grow into the lines above and below."""

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})


def counted(count: int, one: str, more: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{count} {one if count == 1 else more}"


@lru_cache(maxsize=4096)
def clean(text: str, limit: int = 300) -> str:
    """`text` without anything that a terminal or a browser would act on, at most about `limit` characters.

    Controls (C0, DEL, C1), format and bidi characters, surrogates and unassigned code points become visible escapes
    such as ``\\x1b``; every kind of space becomes one space; surplus combining marks and variation selectors go.
    """
    return clean_long(text, limit)


def clean_long(text: str, limit: int) -> str:
    """The same of a text that is too long, or too rare, to be remembered."""
    if text.isascii() and text.isprintable():
        return text[:limit]
    out: list[str] = []
    marks = _MARKS_MAX  # a leading mark has nothing to stand on
    for char in text[:limit]:
        category = unicodedata.category(char)
        if category in _ESCAPED:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
            marks = 0
        elif category in _MARKS:
            marks += 1
            if marks <= _MARKS_MAX and not _is_selector(char):
                out.append(char)
        else:
            out.append(" " if category == "Zs" else char)
            marks = 0
    return "".join(out)


def display_name(name: str, *, simulated: bool) -> tuple[str, str]:
    """(name, mark) as shown: the mark is ` (sim)` for simulated hosts and must survive any cutting of the name.

    A real host that calls itself ``x (sim)`` shows as ``x (sim?)``, so the mark is never ambiguous.
    """
    shown = clean(name).strip()
    if simulated:
        return shown, SIMULATED
    return (shown[:-1] + "?)" if shown.casefold().endswith("(sim)") else shown), ""


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.category(char) in _MARKS or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def width(text: str) -> int:
    """Columns of clean text in a terminal: wide and full-width characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut(text: str, columns: int, *, left: bool = False) -> str:
    """`text` in at most `columns` columns; what is too long loses its end (or its beginning) to one `…`."""
    if width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    kept: list[str] = []
    room = columns - 1
    for char in reversed(text) if left else text:
        room -= _columns(char)
        if room < 0:
            break
        kept.append(char)
    return _ELLIPSIS + "".join(reversed(kept)) if left else "".join(kept) + _ELLIPSIS


def fit(text: str, columns: int, *, left: bool = False, right_align: bool = False) -> str:
    """`text` in exactly `columns` columns: cut (see `cut`) or padded with spaces."""
    text = cut(text, columns, left=left)
    padding = " " * max(0, columns - width(text))
    return padding + text if right_align else text + padding
