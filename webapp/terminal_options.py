"""How a terminal view is written: width, colour, pure ASCII, and in which form. [S]"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dimint.errors import BadQuery
from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.as_terminal import WIDTH_MAX, TerminalStyle
from dimint.webapp.text import width

__all__ = ["TerminalOptions", "as_ascii", "paint", "read_terminal_options"]

FORMATS: Final = ("text", "tsv", "json")
WATCH_MIN_S: Final = 1
WATCH_MAX_S: Final = 3600
TOP_MAX: Final = 100_000
_ASCII: Final = str.maketrans({
    "…": "~", "°": " ", "│": "|", "─": "-", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "|", "●": "*", "◌": "o", "✖": "X",
    "▲": "!", "·": ".", "→": ">", "←": "<", "▁": "0", "▂": "1", "▃": "2", "▄": "4", "▅": "5", "▆": "6", "▇": "8", "█": "9",
})  # fmt: skip
"""One column each, so that columns stay where they are."""
_RED, _YELLOW, _GREEN, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
_PAINTED: Final = re.compile(
    r"(?P<percent>(?<![\d/])\d{1,3} ?%)|(?P<heat>(?<![\d/])\d{1,3} ?°C)"
    r"|(?P<bad>✖|\blost\b|\bhung\b|\bmissing\b|status: down|\bdown\b)"
    r"|(?P<warn>▲|◌|idle-held|waiting for re-uplink)|(?P<good>●|\bfree\b)"
)


@dataclass(frozen=True, slots=True)
class TerminalOptions:
    """`columns` is None where the settings decide; `watch_s` is 0 for one frame; `top` is 0 for all lines."""

    columns: int | None = None
    colour: bool = False
    ascii: bool = False
    form: str = "text"
    watch_s: int = 0
    top: int = 0
    limits: Thresholds = THRESHOLDS

    def style(self, style: TerminalStyle) -> TerminalStyle:
        """The style with the width asked for."""
        return style if self.columns is None else replace(style, columns=self.columns)

    def finished(self, text: str) -> str:
        """The text in the characters and colours asked for. Colours come last: nothing may cut them."""
        text = as_ascii(text) if self.ascii else text
        return paint(text, self.limits) if self.colour else text


def read_terminal_options(get: Callable[[str], str | None], limits: Thresholds = THRESHOLDS) -> TerminalOptions:
    """From the words of an address; `limits` says what is yellow and red. Raises BadQuery."""
    form = get("format") or "text"
    if form not in FORMATS:
        raise BadQuery(f"there is no format {form[:20]!r}; there are {', '.join(FORMATS)}")
    watch = _number("watch", get("watch"), WATCH_MIN_S, WATCH_MAX_S) or 0
    colour = _yes("color", get("color"))
    return TerminalOptions(
        columns=_number("w", get("w"), 1, WIDTH_MAX),
        colour=watch > 0 if colour is None else colour,
        ascii=_yes("ascii", get("ascii")) or False,
        form=form,
        watch_s=watch,
        top=_number("top", get("top"), 1, TOP_MAX) or 0,
        limits=limits,
    )


def as_ascii(text: str) -> str:
    """In ASCII, every character in as many columns as before; what has no likeness is a question mark."""
    translated = text.translate(_ASCII)
    return translated if translated.isascii() else "".join(one if one.isascii() else "?" * width(one) for one in translated)


def paint(text: str, limits: Thresholds) -> str:
    """With ANSI colours for what is high, wrong or free. The text was cleaned, so these are its only escapes."""
    return _PAINTED.sub(lambda match: _coloured(match, limits), text)


def _coloured(match: re.Match[str], limits: Thresholds) -> str:
    kind, found = match.lastgroup, match[0]
    if kind in ("percent", "heat"):
        value = int(re.sub(r"\D", "", found))
        if kind == "percent":
            low, high = limits.some_percent, limits.much_percent
        else:
            low, high = limits.warm_temperature, limits.hot_temperature
        return f"{_RED if value >= high else _YELLOW if value >= low else _GREEN}{found}{_PLAIN}"
    return f"{ {'bad': _RED, 'warn': _YELLOW}.get(kind or '', _GREEN) }{found}{_PLAIN}"


def _number(name: str, text: str | None, least: int, most: int) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not least <= int(text) <= most:
        raise BadQuery(f"{name} is a number from {least} to {most}")
    return int(text)


def _yes(name: str, text: str | None) -> bool | None:
    if not text:
        return None
    if text.lower() not in ("0", "1", "true", "false"):
        raise BadQuery(f"{name} is 0 or 1")
    return text.lower() in ("1", "true")
