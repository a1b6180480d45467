"""The end of a run with faults: replicas are waited for, and history, log, values and stores must fit each other."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dimint.events import KV_TOPIC
from dimint.genesis import GenesisSettings
from dimint.log.opening import genesis, open_log
from dimint.node.replica import META, read_meta
from dimint.node.store import Store
from dimint.system_clock import SystemClock
from tests.support.history import ABSENT, Op, Replay, check
from tests.support.history_load import COUNTERS, REGISTERS, Load
from tests.support.system import OldClient, wait_until

__all__ = ["Verdict", "all_values", "expect_equal_stores", "expect_replicas_at_the_end", "expect_sound", "longest_gap"]


class Verdict(NamedTuple):
    """What a sound run was: the log's end offsets by partition, and operations by what became of them."""

    ends: list[int]
    counts: Counter[str]


def expect_replicas_at_the_end(address: str, seconds: float = 20) -> None:
    """Wait until every partition has its replicas, without a lag or a problem."""
    seen: list[dict[str, Any]] = []

    def settled() -> bool:
        with OldClient(address) as client:
            partitions: list[dict[str, Any]] = client("status").get("partitions", [])
        seen[:] = partitions
        return bool(partitions) and all(
            part["replicas"]
            and {part["master"], *part["slaves"]} <= part["replicas"].keys()
            and not any(one["lag"] or one["problem"] for one in part["replicas"].values())
            for part in partitions
        )

    try:
        wait_until(settled, seconds, "all replicas have caught up")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from error


def all_values(address: str) -> dict[str, Any]:
    """What strong reads return for every key of the load."""
    with OldClient(address) as client:
        values: dict[str, Any] = client("mget", keys=[*REGISTERS, *COUNTERS], consistency="strong")["values"]
    return values


def expect_sound(log_at: str | Path, load: Load, values: dict[str, Any], seed: int) -> Verdict:
    """Every operation has its place in the log's order, every acknowledged increment counts once, the values are the log's."""
    log = open_log(log_at, clock=SystemClock())
    try:
        made = genesis(log, wanted=GenesisSettings(), clock=SystemClock(), host="here", process="test")
        replays = [Replay() for _ in range(made.kv_partitions)]
        ends = []
        for partition, replay in enumerate(replays):
            at, end = log.bounds(KV_TOPIC, partition)
            ends.append(end)
            while at < end:
                for record in log.read(KV_TOPIC, partition, at):
                    replay.take(record)
                    at = record.offset + 1
    finally:
        log.close()

    def partition_of(key: str) -> int:
        return made.partition_of_key(key.encode())

    problems = check(replays, partition_of, load.ops)
    assert not problems, (seed, len(problems), *problems[:5])
    state = {key: replays[partition_of(key)].items.get(key, (ABSENT, 0))[0] for key in [*REGISTERS, *COUNTERS]}
    assert values == {key: value for key, value in state.items() if value != ABSENT}
    for key in COUNTERS:
        assert load.added[key] <= values[key] <= load.added[key] + load.unknown_by[key]
    return Verdict(ends, Counter(op.status for op in load.ops))


def expect_equal_stores(directory: Path, ends: list[int]) -> None:
    """Every node's store of a partition that is at the log's end has the same digest. The nodes have ended."""
    digests: dict[int, set[int]] = {}
    found = 0
    for home in sorted((directory / "nodes").iterdir()):
        store = Store(home)
        for partition in store.partitions():
            meta = read_meta(store.partition(partition).side.get(META))
            if meta is not None and meta.next_offset == ends[partition]:
                digests.setdefault(partition, set()).add(meta.digest)
                found += 1
        store.close()
    used = {partition for partition, end in enumerate(ends) if end}
    assert digests.keys() >= used
    assert found > len(used), "some partitions have two replicas"
    assert all(len(same) == 1 for same in digests.values()), digests


def longest_gap(ops: Iterable[Op], wanted: Callable[[Op], bool]) -> float:
    """Seconds of the longest time without the end of such an operation, from the first to the last operation."""
    ordered = sorted(ops, key=lambda op: op.ended)
    moments = [ordered[0].ended, *(op.ended for op in ordered if wanted(op)), ordered[-1].ended]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))
