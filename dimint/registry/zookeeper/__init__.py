"""The registry on ZooKeeper: for processes on any number of machines."""

from dimint.registry.zookeeper.options import ZooKeeperOptions
from dimint.registry.zookeeper.registry import ZooKeeperRegistry

__all__ = ["ZooKeeperOptions", "ZooKeeperRegistry"]
