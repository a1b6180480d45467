"""Where a registry stands that processes share, for the suites over all backends."""

import secrets
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.registry_member import SESSION_S

__all__ = ["Place", "find_place"]


class Place(NamedTuple):
    """A registry that processes share, and how soon a killed one is gone from it."""

    where: str
    gone_within_s: float


def find_place(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A registry of its own for one test."""
    if backend == "embedded":
        return Place(str(tmp_path / "r"), 0.5)
    zookeeper = request.getfixturevalue("zookeeper")
    tick_s = zookeeper.tick_ms / 1000
    return Place(f"zookeeper://{zookeeper.hosts}/{secrets.token_hex(4)}/r", SESSION_S + 2 * tick_s + 0.5)
