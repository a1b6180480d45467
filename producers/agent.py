"""The agent: at every tick, collect from the sources and hand over to the delivery. One thread does everything."""

import logging
import threading
from collections.abc import Sequence

from dimint.clock import Clock
from dimint.producers.delivery import Delivery
from dimint.producers.publish import Event, Publisher
from dimint.producers.schedule import Schedule
from dimint.producers.sources import Source

__all__ = ["FLUSH_S", "Agent"]

FLUSH_S = 0.8
"""How long the end waits for the log; what is left then is in the spool."""
_WAIT_MOST_S = 60.0

log = logging.getLogger("dimint.agent")


class Agent:
    """A process for dimint.service: `run` until `stop`. Sources, delivery and publisher belong to it while it runs."""

    def __init__(
        self, sources: Sequence[Source], delivery: Delivery, publisher: Publisher, schedule: Schedule, clock: Clock
    ) -> None:
        self._sources, self._delivery, self._publisher = sources, delivery, publisher
        self._schedule, self._clock = schedule, clock
        self._behind = delivery.behind
        self._stopping = threading.Event()

    def run(self) -> None:
        """Collect and publish until stopped; then give what is left to the log, or to the spool."""
        try:
            while not self._stopping.is_set():
                self._publisher.wait(self.step())
            self.finish()
        finally:
            self._delivery.close()
            for source in self._sources:
                source.close()

    def stop(self) -> None:
        self._stopping.set()
        self._publisher.wake()

    def step(self) -> float:
        """Do what is due now; the seconds until there is something to do again."""
        due = self._schedule.tick(self._clock.monotonic())
        if due is not None:
            events: list[Event] = []
            for source in self._sources:
                events += source.events(due)
            self._delivery.put(events)
        else:
            self._delivery.pump()
        if self._delivery.behind != self._behind:
            self._behind = self._delivery.behind
            log.warning("the log takes nothing: samples go to the spool" if self._behind else "the log has everything again")
        ahead = min(self._schedule.next_tick, self._delivery.next_look()) - self._clock.monotonic()
        return min(max(ahead, 0.0), _WAIT_MOST_S)

    def finish(self) -> None:
        """Say goodbye, and wait for the log a little."""
        self._delivery.put([event for source in self._sources for event in source.ending()])
        end = self._clock.monotonic() + FLUSH_S
        while not self._delivery.settled and (left := end - self._clock.monotonic()) > 0:
            self._delivery.pump()
            self._publisher.wait(min(left, 0.1))
