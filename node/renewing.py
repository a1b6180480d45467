"""A store that was rebuilt takes the live one's place: by the running node itself, else by whoever rebuilt it.

The directory `rebuilt` beside the live store is the offer. Whoever holds the store's lock may take it, and a directory is
moved in one step, so it is taken once; what a crash leaves in between is put right by the next look.
"""

import logging
import os
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from dimint.errors import StoreError
from dimint.node.holdings import Holdings
from dimint.node.store import Store, StoreInUse

__all__ = ["BUILDING", "hand_over", "renew", "take_rebuilt"]

BUILDING: Final = "rebuild"
_READY: Final = "rebuilt"
_LOOK_S: Final = 0.05
_TAKE_S: Final = 60.0

logger = logging.getLogger("dimint.node")


def hand_over(directory: Path) -> None:
    """Offer the closed store in `BUILDING` to the node in `directory`, and wait until it is the live one.

    Raises StoreError if a running node does not take it in time; it takes it when it can.
    """
    ready = directory / _READY
    shutil.rmtree(ready, ignore_errors=True)  # what an earlier rebuild offered and nobody took
    os.rename(directory / BUILDING, ready)
    deadline = time.monotonic() + _TAKE_S
    while ready.exists():
        try:
            with closing(Store(directory)) as store:
                take_rebuilt(store)
        except StoreInUse:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"the node in {directory} has not taken the rebuilt store within {_TAKE_S:g} s", hint="see its log file"
                ) from None
            time.sleep(_LOOK_S)


def take_rebuilt(store: Store) -> bool:
    """Put what a rebuild offers in the place of the store's contents; whether there was something."""
    ready = store.directory / _READY
    if not ready.exists():
        return False
    offered = (ready / "store").exists()
    if offered:
        store.replace_by(ready)
    shutil.rmtree(ready)
    return offered


def renew(store: Store, holdings: Holdings, held: frozenset[int], now: float) -> bool:
    """A running node's look: go on with a rebuilt store, if there is one, holding the same partitions; whether there was.

    Where it is behind the live one the log is read again; a partition that it lacks is built like a new one.
    """
    if not (store.directory / _READY).exists():
        return False
    holdings.commit(now)
    holdings.hold(frozenset(), now)
    holdings.aborts += 1  # half a snapshot that was being taken is not in the new store
    taken = take_rebuilt(store)
    holdings.hold(held, now)
    if taken:
        logger.info("a rebuilt store has taken the place of the one before")
    return taken
