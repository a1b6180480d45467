"""How old an answer may be, from ends that were asked for."""

from dimint.batch import By, encode
from dimint.events import KV_TOPIC
from dimint.log.port import Record
from dimint.node.ages import Ages
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from tests.support.placing import ONE


def test_an_end_proves_as_much_as_when_it_was_asked_for() -> None:
    """Reached late, it still counts from its own time; without new ones the age grows."""
    replica = Replica(0, ONE, MemoryState())
    ages = Ages({0: replica})

    def apply(offset: int) -> None:
        replica.apply([Record(KV_TOPIC, 0, offset, 1000, encode(b"w" * 16, offset + 1, 0, [By(None, "h", "p")], []))])

    assert ages.age_ms(0) == -1
    ages.learn({0: 0}, 10.0)
    ages.now = 12.5
    assert ages.age_ms(0) == 2500
    ages.learn({0: 2}, 13.0)
    ages.learn({0: 3}, 14.0)
    ages.now = 15.0
    apply(0)
    assert ages.age_ms(0) == 5000
    apply(1)
    assert ages.age_ms(0) == 2000
    ages.now = 16.0
    apply(2)
    assert ages.age_ms(0) == 2000
    ages.forget(0)
    assert ages.age_ms(0) == -1
    assert ages.age_ms(1) == -1
