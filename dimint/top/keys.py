"""Keys out of the bytes that a terminal sends. [S]"""

from typing import Final

__all__ = ["read_keys"]

_LAST: Final = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_NUMBERED: Final = {"1": "home", "4": "end", "5": "page-up", "6": "page-down"}
_SEQUENCES: Final = {
    **{f"\x1b{kind}{last}".encode(): name for kind in "[O" for last, name in _LAST.items()},
    **{f"\x1b[{number}~".encode(): name for number, name in _NUMBERED.items()},
}
_SINGLE: Final = {
    0x0D: "enter", 0x0A: "enter", 0x7F: "backspace", 0x08: "backspace", 0x1B: "escape", 0x03: "interrupt", 0x04: "end-of-input",
}  # fmt: skip
_LONGEST: Final = 8


def read_keys(data: bytes) -> list[str]:
    """Characters as they are, other keys by name (`up`, `enter`, `escape` …); what is not known is passed over.

    `data` is what came at once: an escape at its end is the key, one before more bytes begins a sequence.
    """
    keys: list[str] = []
    at = 0
    while at < len(data):
        byte = data[at]
        if byte == 0x1B and data[at + 1 : at + 2] in (b"[", b"O"):
            end = at + 2
            while end < len(data) and end - at < _LONGEST and not 0x40 <= data[end] <= 0x7E:
                end += 1
            if name := _SEQUENCES.get(data[at : end + 1]):
                keys.append(name)
            at = end + 1
        elif byte in _SINGLE:
            keys.append(_SINGLE[byte])
            at += 1
        elif byte < 0x20:
            at += 1
        else:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            text = data[at : at + length].decode("utf-8", "ignore")
            keys += [text] if len(text) == 1 else []
            at += length
    return keys
