"""The keeper: lets go of what the log has held for longer than it is to be kept. One in a system at a time.

It goes no further than `dimint trim` would: never past anybody who still needs the records, and never without an archive.
What cannot go now is looked at again. Where dimint.kv is to go, it takes the snapshots that have to stay behind, and lets
go of old ones.
"""

import logging
import os
import socket
import threading
from typing import Final

from dimint.clock import Clock
from dimint.errors import DimintError, LogBroken, RegistryLost
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.port import Log, TopicPartition
from dimint.registry.port import Registry
from dimint.replay.needs import needs_of
from dimint.replay.ranges import first_at
from dimint.replay.snapshotting import keep_snapshots
from dimint.replay.trimming import trim
from dimint.settings import ConsumerSettings
from dimint.trim_plan import Cut, plan, taking

__all__ = ["Keeper"]

ELECTION: Final = "keeper"
LOOK_S: Final = 600.0
"""How often it looks, and how long after its start it begins; sooner where less is kept than some hours."""
AT_ONCE: Final = 1 / 30
"""It lets go of this part of what is kept at once: a day of thirty, so that there are an archive and a snapshot a day."""
_DAY_S: Final = 86400.0

log = logging.getLogger("dimint.consumer")


class Keeper:
    """A process object (see dimint/service.py). Log and registry are the caller's."""

    def __init__(self, settings: ConsumerSettings, source: Log, registry: Registry, clock: Clock) -> None:
        self._settings, self._log, self._registry, self._clock = settings, source, registry, clock
        self._keep_s = {STATUS_TOPIC: settings.keep_status_log * _DAY_S, KV_TOPIC: settings.keep_kv_log * _DAY_S}
        self._stopping = threading.Event()
        self._said = ""

    def run(self) -> None:
        kept = [seconds for seconds in self._keep_s.values() if seconds]
        if not kept:
            self._stopping.wait()
            return
        candidacy = self._registry.elect(ELECTION, os.urandom(16).hex())
        while not self._stopping.wait(min(LOOK_S, min(kept) * AT_ONCE)):
            if candidacy.fence() is not None:
                self.look()

    def stop(self) -> None:
        self._stopping.set()

    def look(self) -> None:
        """Let go of what is too old, if it is worth it."""
        for topic, keep_s in self._keep_s.items():
            try:
                if topic == KV_TOPIC and keep_s:
                    self._keep_snapshots(keep_s * AT_ONCE)
                self._look(topic, keep_s)
            except (LogBroken, RegistryLost):
                raise
            except DimintError as error:
                if self._said != str(error):
                    self._said = str(error)
                    log.warning("%s is kept for longer than %g days: %s", topic, keep_s / _DAY_S, error)

    def _keep_snapshots(self, every_s: float) -> None:
        kept = keep_snapshots(self._settings, self._log, self._clock, every_s=every_s, keep=self._settings.keep_snapshots)
        if kept.taken is not None:
            log.info("a snapshot was taken: %s", kept.taken.path)
        for folder in kept.gone:
            log.info("an old snapshot was removed: %s", folder)

    def _look(self, topic: str, keep_s: float) -> None:
        cuts = self._too_old(topic, keep_s, more_s=keep_s * AT_ONCE)
        if not keep_s or not taking(cuts):
            return
        wanted = {cut.partition: cut.before for cut in self._too_old(topic, keep_s)}
        bounds = {partition: self._log.bounds(topic, partition) for partition in wanted}
        cuts = taking(plan(bounds, wanted, needs_of(self._settings, self._log, topic, self._clock)))
        if not cuts:
            return
        done = trim(
            self._log, topic, cuts, self._registry, archives=self._settings.archives, clock=self._clock, host=socket.gethostname()
        )
        count = sum(cut.records for cut in done.cuts)
        log.info("%s: %d records older than %g days were let go of; they are in %s", topic, count, keep_s / _DAY_S, done.archive)

    def _too_old(self, topic: str, keep_s: float, *, more_s: float = 0.0) -> list[Cut]:
        limit_ns = self._clock.time_ns() - int((keep_s + more_s) * 1e9)
        partitions = range(self._log.describe().topics.get(topic, 0))
        wanted = {partition: first_at(self._log, TopicPartition(topic, partition), limit_ns) for partition in partitions}
        return plan({partition: self._log.bounds(topic, partition) for partition in partitions}, wanted, [])
