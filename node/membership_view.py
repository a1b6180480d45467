"""What a node knows of the cluster: the registry as it read it last. [S]"""

from collections.abc import Mapping
from typing import NamedTuple

from dimint.assignment import Assignment

__all__ = ["NodeInfo", "OverlordInfo", "Seen"]


class OverlordInfo(NamedTuple):
    """A live overlord: the address of its node door, and its writer (it has another one after each start)."""

    address: str
    writer: str


class NodeInfo(NamedTuple):
    """A live node: the address of its own door, and whether it is about to end."""

    address: str
    leaving: bool = False


class Seen(NamedTuple):
    """The registry as it is now. `assignment` is the newest seen, None as long as there is none."""

    overlords: Mapping[str, OverlordInfo]
    assignment: Assignment | None
    nodes: Mapping[str, NodeInfo]
