"""A replica, fed a log in any way, is what the dumb model says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.node.replica import Replica
from dimint.node.rows import HEAD, VALUE_AT
from dimint.node.state import MemoryState
from tests.support.kv_model import Item, Model, Step, fold, steps
from tests.support.placing import ONE


def _contents(state: MemoryState) -> dict[str, Item]:
    found = {}
    for key, row in state.data.rows.items():
        version, expires_us = HEAD.unpack_from(row)
        found[key.decode()] = Item(row[VALUE_AT:], version, expires_us)
    return found


def _check(replica: Replica, state: MemoryState, model: Model) -> None:
    assert replica.problem is None
    assert _contents(state) == model.items
    assert replica.key_count == len(model.items)
    due = sorted((item.expires_us, key.encode(), item.version) for key, item in model.items.items() if item.expires_us)
    assert [(d.expires_us, d.key.encode(), d.version) for d in replica.due(1 << 62, 1000)] == due
    for (writer, number), expected in model.outcomes.items():
        if number > model.numbers.get(writer, 0):
            continue  # the writer was silent for so long that nobody asks any more
        known = replica.outcomes_of(writer, number)
        assert known is not None
        assert known.kept
        assert {index: (o.name, o.value, o.version) for index, o in known.outcomes.items()} == expected


@settings(max_examples=150)
@given(
    made=steps(),
    cuts=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=6),
    reopen=st.booleans(),
    again=st.booleans(),
)
def test_a_store_is_the_fold_of_its_log(made: list[Step], cuts: list[tuple[int, bool]], reopen: bool, again: bool) -> None:
    """However the log is cut, saved or not at a cut, re-opened in between or read twice, contents, outcomes, changes and due
    list are the model's."""
    records = [step.record(offset) for offset, step in enumerate(made)]
    state = MemoryState()
    replica = Replica(0, ONE, state)
    replica.watched = True
    reported = {}
    fresh = []
    at = 0
    for cut, saved in [*sorted(cuts), (len(records), True)]:
        chunk = records[0 if again else at : max(at, cut)]
        reported.update({(applied.writer, applied.number): applied.outcomes for applied in replica.advance(chunk)})
        if saved:
            replica.save()
        at = max(at, cut)
        fresh += replica.take_fresh()
        if reopen and saved:
            replica = Replica(0, ONE, state)
            replica.watched = True
    model = fold(made)
    assert fresh == model.changes
    assert replica.changes(records) == model.changes
    _check(replica, state, model)
    assert set(reported) == {batch for batch, outcomes in model.outcomes.items() if outcomes}
    whole = Replica(0, ONE, MemoryState())
    whole.apply(records)
    assert (whole.digest, whole.next_offset, whole.log_time_us) == (replica.digest, replica.next_offset, replica.log_time_us)
    assert whole.state(caught_up=True) == replica.state(caught_up=True)
