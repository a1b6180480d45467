"""Other people's text made harmless for a terminal: keys, values and names may hold control characters. [S]"""

import json
import unicodedata

__all__ = ["visible"]


def visible(text: str, keep: str = "") -> str:
    r"""`text` with JSON's escapes for all that a terminal would act on or not show; JSON stays the same JSON.

    Controls (C0, DEL, C1), format and bidi characters, surrogates and unassigned code points are escaped unless they
    stand in `keep`; every kind of space stays.

    >>> print(visible("a\x1b[2J\tb\u202e"))
    a\u001b[2J\tb\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) or char in keep else json.dumps(char)[1:-1] for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
