"""Connections to other nodes' doors, made when there is something to ask."""

import logging
from collections.abc import Mapping
from typing import Final

from dimint.errors import ParseError, SettingsError
from dimint.node import peering
from dimint.node.membership_view import NodeInfo
from dimint.node.peering import FromHolder, FromTaker
from dimint.transport import Context, Dealer, Door, Poller

__all__ = ["Peers"]

RECEIVE_MAX: Final = 16
QUEUE_MAX: Final = 16

logger = logging.getLogger("dimint.node")


class Peers:
    """Dealers by node. Belongs to the node's own thread."""

    def __init__(self, context: Context, poller: Poller) -> None:
        self._context, self._poller = context, poller
        self._nodes: Mapping[str, NodeInfo] = {}
        self._dealers: dict[str, Dealer] = {}

    def follow(self, nodes: Mapping[str, NodeInfo]) -> None:
        """The nodes that are there."""
        for node, info in self._nodes.items():
            if node in self._dealers and nodes.get(node, NodeInfo("")).address != info.address:
                self._drop(node)
        self._nodes = nodes

    def there(self, node: str) -> bool:
        """Whether a node could be asked."""
        return bool(self._nodes.get(node, NodeInfo("")).address)

    def send(self, node: str, message: FromTaker) -> None:
        """Send if the node is there; it may be lost in any case."""
        dealer = self._dealers.get(node)
        if dealer is None:
            info = self._nodes.get(node)
            if info is None or not info.address:
                return
            try:
                dealer = self._dealers[node] = self._context.dealer(info.address, queue_max=QUEUE_MAX)
            except SettingsError as error:
                logger.warning("node %s: %s", node, error)
                return
            self._poller.add(dealer)
        dealer.send(peering.encode(message))

    def receive(self, member: Door | Dealer) -> tuple[str, list[FromHolder]] | None:
        """What a ready dealer has. None for what is not one of the dealers."""
        node = next((node for node, dealer in self._dealers.items() if dealer is member), None)
        if node is None:
            return None
        messages = []
        for frame in self._dealers[node].receive(RECEIVE_MAX):
            try:
                messages.append(peering.decode_from_holder(frame))
            except ParseError as error:
                logger.warning("node %s sent what no node sends: %s", node, error)
        return node, messages

    def keep_only(self, node: str | None) -> None:
        """Close the connections to all others."""
        for other in self._dealers.keys() - {node}:
            self._drop(other)

    def close(self) -> None:
        """Idempotent."""
        self.keep_only(None)

    def _drop(self, node: str) -> None:
        dealer = self._dealers.pop(node)
        self._poller.remove(dealer)
        dealer.close()
