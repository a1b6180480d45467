"""Names of hosts on the pages: cleaned, unique, and the same after every rebuild. [S]

A host says what it is called; several may say the same, and names are hostile text. A host's *claim* is (log time at which
it first said its present name, host id, cleaned name). Claims are served in that order: who came first has the plain
name, later ones get `_` and the first 32 random bits of their own id in hex. So the names are a function of the claims
alone, whatever order the partitions were read in.
"""

from collections.abc import Iterable
from typing import NamedTuple

from dimint.limits import HOST_NAME_MAX_CHARS

__all__ = ["Claim", "clean_name", "share_names", "with_suffix"]

_FORBIDDEN = str.maketrans(dict.fromkeys(".,-@[]:;/", "_"))
_SUFFIX_CHARS = 33
"""Room for the longest suffix, so that a unique name keeps to the limit of names."""


class Claim(NamedTuple):
    """`name` is cleaned; `since_ns` is log time."""

    since_ns: int
    host: str
    name: str


def clean_name(name: str) -> str:
    """The form in which a name is registered: forbidden and unprintable characters become `_`.

    >>> clean_name("gpu-01.lab")
    'gpu_01_lab'
    """
    text = name[:HOST_NAME_MAX_CHARS].translate(_FORBIDDEN)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else "_" for letter in text)
    return text


def with_suffix(name: str, host: str) -> str:
    """What a host with this id is called when its (cleaned) name is taken.

    >>> with_suffix("gpu_01", "0123456789abcdef0123456789abcdef")
    'gpu_01_01234567'
    """
    return f"{name[: HOST_NAME_MAX_CHARS - _SUFFIX_CHARS]}_{host[:8]}"


def share_names(claims: Iterable[Claim]) -> dict[str, str]:
    """Host id → unique name."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for claim in sorted(claims):
        wanted = claim.name or claim.host
        if wanted in taken:
            wanted = with_suffix(wanted, claim.host)
            if wanted in taken:  # somebody calls himself just that
                wanted = f"{claim.name[: HOST_NAME_MAX_CHARS - _SUFFIX_CHARS]}_{claim.host}"
            while wanted in taken:
                wanted += "_"
        taken.add(wanted)
        names[claim.host] = wanted
    return names
