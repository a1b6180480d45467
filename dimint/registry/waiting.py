"""Open the registry of a process that is to run for long: while ZooKeeper is away it waits instead of ending."""

import logging
from typing import Final

from dimint.errors import RegistryError, RegistryLost
from dimint.registry.opening import open_registry
from dimint.registry.port import Registry
from dimint.service import Service
from dimint.settings import CommonSettings

__all__ = ["open_registry_when_there"]

SAY_AFTER_S: Final = 2.0
"""A server that answers within this is not worth a line."""
AGAIN_S: Final = 1.0

logger = logging.getLogger("dimint")


def open_registry_when_there(settings: CommonSettings, *, service: Service, log_id: str | None = None) -> Registry:
    """`open_registry`, however long it takes until a server answers.

    Says in one line what it waits for, and when that is over. If the service is to stop meanwhile, SystemExit ends the
    calling thread. Raises what `open_registry` raises, but for a registry that only does not answer.
    """
    told = False

    def goes_on(waited_s: float, trouble: str) -> bool:
        nonlocal told
        if waited_s > SAY_AFTER_S and not told:
            told = True
            hosts = ",".join(settings.zookeeper_hosts)
            service.waits(f"waiting for ZooKeeper at {hosts} ({trouble}); Ctrl-C ends it")
        return not service.stopping.is_set()

    while True:
        try:
            registry = open_registry(settings, log_id=log_id, spawn=service.spawn, patience=goes_on)
        except RegistryLost:
            raise
        except RegistryError as error:  # it went away again, or nobody waits any more
            goes_on(0.0 if service.stopping.is_set() else SAY_AFTER_S + 1, str(error))
        else:
            if told:
                logger.warning("ZooKeeper answers now")
            return registry
        if service.stopping.wait(AGAIN_S):
            raise SystemExit(0)
