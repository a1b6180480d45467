"""Status tables of a big fleet as the consumer writes them, without the days that it takes: a few stretches of the past for
all hosts, each with its chunk of samples, its blocks of the minute tier and its hours of use, and the newest sample of each.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import apsw
import msgpack

from dimint.consumers.projection import Changes, CoveredRow, HostFacts, HostLatest, MakeHost, PutTail, PutVersion, UsedRow
from dimint.consumers.reading import CURRENT
from dimint.consumers.rows import StoredSample, pack_sample, seal
from dimint.consumers.sealing import ChunkSpan
from dimint.consumers.tables import StatusTables
from dimint.consumers.tables_sealing import put_chunks
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, block_of, pack_block, sum_up
from dimint.consumers.usage import HOUR_US, use_of
from tests.support.samples import Machine, host_id

__all__ = ["INTERVAL_NS", "FleetTables"]

INTERVAL_NS: Final = 5_000_000_000
CHUNK: Final = 240
"""Samples of a chunk, as most are."""
_MAKES: Final = 8
"""Hosts of one make have the same samples."""


class FleetTables:
    """`hosts` hosts in a tables folder, known since `since_ns`. One thread; close it."""

    def __init__(self, folder: Path, hosts: int, gpus: int, since_ns: int) -> None:
        self.ids = [host_id(number) for number in range(hosts)]
        self._machines = [Machine(seed, gpus=gpus) for seed in range(min(hosts, _MAKES))]
        self._samples = [[machine.step() for _ in range(3600 * 1_000_000_000 // INTERVAL_NS)] for machine in self._machines]
        self._path = folder / "status-000001.db"
        self._tables = StatusTables(self._path)
        self._since_ns = since_ns
        self._sealed, self._single = 0, [0] * hosts
        packed = [msgpack.packb(machine.facts) for machine in self._machines]
        names = {host: f"gpu-{number:04d}" for number, host in enumerate(self.ids)}
        facts = [
            HostFacts(host, names[host], since_ns, f"10.0.{at >> 8}.{at & 255}", packed[at % len(packed)], True, since_ns)
            for at, host in enumerate(self.ids)
        ]
        self._commit(
            [MakeHost(host) for host in self.ids]
            + [PutVersion(one.id, 0, since_ns, one.given_name, since_ns, one.ip, one.facts, True, "") for one in facts],
            facts=tuple(facts),
            names=names,
        )
        (folder / CURRENT).write_text(self._path.name)

    def close(self) -> None:
        self._tables.close()

    def hour(self, until_ns: int) -> None:
        """Every host's hour before a time, oldest first, before all reports: its last chunk, its minutes, its use."""
        first_ns = until_ns - len(self._samples[0]) * INTERVAL_NS
        chunks: list[tuple[ChunkSpan, bytes]] = []
        blocks: list[dict[int, bytes]] = []
        for samples in self._samples:
            stored = [
                StoredSample(first_ns + at * INTERVAL_NS, first_ns + at * INTERVAL_NS + 2_000_000, b"r" * 8, at + 1, sample)
                for at, sample in enumerate(samples)
            ]
            last = stored[-CHUNK:]
            first = 1 + self._sealed
            span = ChunkSpan((last[0].time_ns, first), last[-1].time_ns)
            chunks.append((span, seal([(first + at, one) for at, one in enumerate(last)])))
            slots = sum_up(stored, MINUTE_NS)
            blocks.append({
                block: pack_block({number: slot for number, slot in slots.items() if block_of(number) == block})
                for block in sorted(set(map(block_of, slots)))
            })  # fmt: skip
        db = apsw.Connection(str(self._path))
        with db:
            for number, host in enumerate(self.ids):
                make = number % len(chunks)
                put_chunks(db, host, [chunks[make]])
                db.executemany(
                    "insert or ignore into tiers(host, length_ns, block, blob) values(?, ?, ?, ?)",
                    [(host, MINUTE_NS, block, made) for block, made in blocks[make].items()],
                )
        db.close()
        self._sealed += CHUNK
        hour = first_ns // HOUR_NS
        uses = [use_of(samples[-1], HOUR_US) for samples in self._samples]
        rows = [(host, uses[number % len(uses)]) for number, host in enumerate(self.ids)]
        self._commit(
            [],
            used=tuple(UsedRow(hour, host, user, used) for host, use in rows for user, used in use.users.items()),
            covered=tuple(CoveredRow(hour, host, use.gpus, use.known_us, INTERVAL_NS // 1000) for host, use in rows),
        )

    def report(self, time_ns: int, numbers: Iterable[int], tick: int = 0) -> None:
        """A sample of each of these hosts, in one commit."""
        packed = [
            pack_sample(StoredSample(time_ns, time_ns + 2_000_000, b"r" * 8, tick + 1, samples[tick % len(samples)]))[0]
            for samples in self._samples
        ]
        hosts = []
        for number in numbers:
            self._single[number] += 1
            hosts.append((self.ids[number], self._sealed + self._single[number], packed[number % len(packed)]))
        self._commit(
            [PutTail(host, n, time_ns, blob) for host, n, blob in hosts],
            latest=tuple(HostLatest(host, n, self._since_ns, time_ns, time_ns + 2_000_000) for host, n, _ in hosts),
        )

    def _commit(self, writes: Iterable[object], **more: object) -> None:
        changes = Changes((), (), {}, (), (), {})._replace(writes=tuple(writes), **more)  # type: ignore[arg-type]
        self._tables.commit(changes, {}, [])
