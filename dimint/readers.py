"""Readers of the log that are not parts of the system: who they are and what they still need, so that it is not trimmed. [S]

One value in the registry has all of them, JSON: {name: {"log": generation, "needs": positions, "host": …, "told_ns": …}}.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dimint.errors import BadPosition, RegistryError
from dimint.replay.positions import Positions, format_positions, parse_positions

__all__ = ["READERS_PATH", "ReaderSeen", "decode_readers", "encode_readers"]

READERS_PATH: Final = "readers"


class ReaderSeen(NamedTuple):
    """What a reader told: the first record of each partition that it needs, from which host, and when (ns since 1970)."""

    log: str
    needs: Positions
    host: str
    told_ns: int


def encode_readers(readers: Mapping[str, ReaderSeen]) -> bytes:
    """The registry's value."""
    rows = {name: {**seen._asdict(), "needs": format_positions(seen.needs)} for name, seen in readers.items()}
    return json.dumps(rows, ensure_ascii=False).encode()


def decode_readers(value: bytes | None) -> dict[str, ReaderSeen]:
    """The inverse; nobody where there is no value. Raises RegistryError."""
    try:
        rows: Any = {} if value is None else json.loads(value)
        return {
            name: ReaderSeen(row["log"], parse_positions(row["needs"]), row["host"], int(row["told_ns"]))
            for name, row in rows.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, BadPosition) as error:
        raise RegistryError(f"the readers in the registry cannot be read: {error}") from error
