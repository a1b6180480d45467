"""The LMDB store behind a replica is the reference state, and what a crash leaves is an exact prefix of the log."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.node.replica import META, Replica, read_meta
from dimint.node.state import MemoryState
from dimint.node.store import Store
from tests.support.forked import Forked
from tests.support.kv_model import Step, steps
from tests.support.placing import ONE
from tests.support.replica_feed import make_records


def _reference(made: list[Step], offset: int) -> tuple[Replica, MemoryState]:
    state = MemoryState()
    replica = Replica(0, ONE, state)
    replica.apply([step.record(at) for at, step in enumerate(made[:offset])])
    return replica, state


@settings(max_examples=60)
@given(made=steps(), acts=st.lists(st.sampled_from(["apply", "apply", "commit", "abort", "reopen"]), max_size=12))
def test_lmdb_is_the_reference_after_any_commits_and_crashes(made: list[Step], acts: list[str]) -> None:
    """After a crash the store holds the fold of the log up to the offset that it names, and goes on from there."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory), map_bytes=1 << 24)
        replica = Replica(0, ONE, store.partition(0))
        for act in [*acts, "reopen", "apply", "commit"]:
            if act == "apply":
                at = replica.next_offset
                some = made[at : at + 3] if len(made) - at > 3 else made[at:]
                replica.apply([step.record(at + index) for index, step in enumerate(some)])
            elif act == "commit":
                store.commit()
            else:
                store.abort()
                if act == "reopen":
                    store.close()
                    store = Store(Path(directory), map_bytes=1 << 24)
                replica = Replica(0, ONE, store.partition(0))
            expected, state = _reference(made, replica.next_offset)
            assert dict(store.partition(0).data.scan(b"", b"", 1000)) == state.data.rows
            assert (replica.digest, replica.key_count) == (expected.digest, expected.key_count)
            assert (replica.log_time_us, replica.dead_letters) == (expected.log_time_us, expected.dead_letters)
            wanted = {key: row for key, row in state.side.rows.items() if key[:1] in b"wdeqm"}
            assert {key: row for key, row in store.partition(0).side.scan(b"", b"", 9999) if key[:1] in b"wdeqm"} == wanted
        store.close()


@pytest.mark.parametrize("point", range(1, 25))
def test_a_kill_at_any_point_leaves_a_prefix_of_the_log(tmp_path: Path, point: int) -> None:
    """A process killed around its saves and commits is found at an offset whose content is the fold up to it."""
    environment = os.environ | {"FEED_DIRECTORY": str(tmp_path), "FEED_POINT": str(point)}
    assert Forked([sys.executable, "-m", "tests.support.replica_feed"], env=environment).wait(30) == -9
    records = make_records()
    store = Store(tmp_path)
    meta = read_meta(store.partition(0).side.get(META))
    offset = 0 if meta is None else meta.next_offset
    assert offset in range(0, len(records) + 1, 20)
    expected = Replica(0, ONE, state := MemoryState())
    expected.apply(records[:offset])
    replica = Replica(0, ONE, store.partition(0))
    assert replica.next_offset == offset
    assert dict(store.partition(0).data.scan(b"", b"", 10_000)) == state.data.rows
    replica.apply(records[offset:])
    expected.apply(records[offset:])
    assert replica.digest == expected.digest
    store.close()
