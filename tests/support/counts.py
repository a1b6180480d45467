"""A projection that counts: `python -m tests.support.counts LOG FILE` runs it to the log's end."""

import sys

from dimint.events import KV_TOPIC
from dimint.log.opening import open_log
from dimint.replay.event import LoggedEvent
from dimint.replay.projection import run
from dimint.replay.sqlite import SqliteProjection
from dimint.system_clock import SystemClock


class Counts(SqliteProjection):
    """How often each key was written, and every event's id: a second one of any would break the table."""

    topics = (KV_TOPIC,)
    commit_events = 20
    schema = "CREATE TABLE seen(id TEXT PRIMARY KEY); CREATE TABLE counts(key TEXT PRIMARY KEY, count INTEGER NOT NULL)"

    def apply(self, event: LoggedEvent) -> None:
        self.db.execute("INSERT INTO seen VALUES (?)", (str(event.id),))
        self.db.execute("INSERT INTO counts VALUES (?, 1) ON CONFLICT(key) DO UPDATE SET count = count + 1", (event.key,))

    def total(self) -> int:
        row = self.db.execute("SELECT coalesce(sum(count), 0), (SELECT count(*) FROM seen) FROM counts").fetchone()
        assert row is not None
        assert row[0] == row[1]
        return int(row[0])


def main(location: str, file: str) -> None:
    log = open_log(location, clock=SystemClock())
    with Counts(file) as counts:
        run(counts, log)
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
