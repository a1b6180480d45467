"""What never changes for a log: its slots and partition counts, from its first `cluster.genesis` event. [S]"""

from collections.abc import Iterable
from hashlib import md5
from typing import Any, NamedTuple

from dimint.errors import LogMismatch, SettingsError
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.limits import HASH_RANGE_MAX, PARTITIONS_MAX
from dimint.slots import partition_of, slots_of, stray

__all__ = [
    "DEFAULT_KV_PARTITIONS",
    "DEFAULT_KV_PARTITIONS_ON_KAFKA",
    "Genesis",
    "GenesisSettings",
    "check_wanted",
    "from_event",
    "to_event",
]

HASH = "md5"
DEFAULT_HASH_RANGE = 10_000
DEFAULT_KV_PARTITIONS = 4
"""On one machine: enough for as many nodes as it has use for, and each one more makes every commit dearer."""
DEFAULT_KV_PARTITIONS_ON_KAFKA = 16
"""More, because a cluster has more nodes to spread them over and can never have more partitions later."""
DEFAULT_STATUS_PARTITIONS = 4


class GenesisSettings(NamedTuple):
    """What was asked for; None takes what the log has, or the default for a new one."""

    hash_range: int | None = None
    kv_partitions: int | None = None
    status_partitions: int | None = None


class Genesis(NamedTuple):
    """What a log is, for ever. `generation` is the log's own, which positions and tokens carry."""

    generation: str
    hash_range: int
    kv_partitions: int
    status_partitions: int

    def partition_of_key(self, key: bytes) -> int:
        """Partition in KV_TOPIC of a key's canonical bytes."""
        return partition_of(key, self.hash_range, self.kv_partitions)

    def stray_key(self, keys: Iterable[bytes], partition: int) -> bytes | None:
        """The first of these keys that does not belong into this partition of KV_TOPIC; None if all do."""
        return stray(keys, slots_of(partition, self.hash_range, self.kv_partitions), self.hash_range)

    def status_partition(self, id: str) -> int:
        """Partition in STATUS_TOPIC of a host or process id."""
        return int.from_bytes(md5(id.encode(), usedforsecurity=False).digest(), "big") % self.status_partitions


def to_event(wanted: GenesisSettings, *, kv_partitions: int = DEFAULT_KV_PARTITIONS) -> list[Any]:
    """The `cluster.genesis` event of a new log, with so many partitions if none were asked for.

    Raises SettingsError for numbers out of range.
    """
    hash_range = DEFAULT_HASH_RANGE if wanted.hash_range is None else wanted.hash_range
    partitions = {
        KV_TOPIC: kv_partitions if wanted.kv_partitions is None else wanted.kv_partitions,
        STATUS_TOPIC: DEFAULT_STATUS_PARTITIONS if wanted.status_partitions is None else wanted.status_partitions,
    }
    if not 1 <= hash_range <= HASH_RANGE_MAX:
        raise SettingsError(f"hash_range is {hash_range}, it must be in 1…{HASH_RANGE_MAX}")
    for topic, count in partitions.items():
        if not 1 <= count <= PARTITIONS_MAX:
            raise SettingsError(f"{topic} cannot have {count} partitions, 1…{PARTITIONS_MAX} are allowed")
    if partitions[KV_TOPIC] > hash_range:
        raise SettingsError(f"{partitions[KV_TOPIC]} partitions are more than the hash_range of {hash_range}")
    return ["cluster.genesis", None, 0, 0, {"hash": HASH, "hash_range": hash_range, "partitions": partitions}]


def from_event(generation: str, settings: dict[str, Any]) -> Genesis:
    """Raises LogMismatch if the event's settings are not what this program can follow."""
    try:
        partitions = settings["partitions"]
        genesis = Genesis(generation, settings["hash_range"], partitions[KV_TOPIC], partitions[STATUS_TOPIC])
        readable = settings["hash"] == HASH and all(type(number) is int and number >= 1 for number in genesis[1:])
    except (KeyError, TypeError):
        readable = False
    if not readable:
        raise LogMismatch(f"the log's genesis cannot be followed: {settings!r:.200}", hint="upgrade this program")
    return genesis


def check_wanted(genesis: Genesis, wanted: GenesisSettings) -> None:
    """Raises LogMismatch if something else than the log has was asked for."""
    for name in ("hash_range", "kv_partitions", "status_partitions"):
        asked, have = getattr(wanted, name), getattr(genesis, name)
        if asked is not None and asked != have:
            raise LogMismatch(f"{name} of this log is {have} for ever, not {asked}", hint=f"leave {name} out, or use a new log")
