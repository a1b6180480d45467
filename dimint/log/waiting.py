"""Open the log of a process that is to run for long: while Kafka is away it waits instead of ending."""

import logging
import socket
from typing import Final

from dimint.clock import Clock
from dimint.errors import LogUnavailable
from dimint.genesis import Genesis, GenesisSettings
from dimint.log.opening import genesis, open_settings_log
from dimint.log.port import Log
from dimint.service import Service
from dimint.settings import CommonSettings

__all__ = ["open_when_there"]

AGAIN_S: Final = 1.0

logger = logging.getLogger("dimint")


def open_when_there(
    settings: CommonSettings, *, wanted: GenesisSettings, clock: Clock, process: str, service: Service
) -> tuple[Log, Genesis]:
    """The log that the settings name and its genesis, however long it takes until the log answers.

    Says in one line what it waits for, and when that is over. If the service is to stop meanwhile, SystemExit ends the
    calling thread. Raises what `open_settings_log` and `genesis` raise, but for LogUnavailable.
    """
    waiting = False
    while True:
        try:
            log = open_settings_log(settings, clock=clock)
            try:
                found = genesis(log, wanted=wanted, clock=clock, host=socket.gethostname(), process=process)
            except BaseException:
                log.close()
                raise
        except LogUnavailable as error:
            if not waiting:
                waiting = True
                service.waits(f"waiting for the log ({error}); Ctrl-C ends it")
        else:
            if waiting:
                logger.warning("the log answers now")
            return log, found
        if service.stopping.wait(AGAIN_S):
            raise SystemExit(0)
