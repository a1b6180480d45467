"""Questions for the past that are not answered in time: the error says how far the consumer is that was asked."""

from typing import Any

import msgspec

from dimint.door_past import Historian, Told
from dimint.overlord.past import SILENT_S, PastQuestions
from dimint.overlord.pending import PendingTable
from dimint.so_far import SoFar
from dimint.wire_types import JSON, GetAt

SO_FAR = SoFar(120, 1000, 39.2)


class Overlord:
    """One partition, one client."""

    def __init__(self) -> None:
        self.table = PendingTable()
        self.questions = PastQuestions(self.table, lambda key: 0, "g", 1)

    def ask(self, *, now: float) -> tuple[Any, int]:
        """Which consumer gets a question, and its number."""
        request = GetAt(id=1, key="k", at=5, timeout=2.0)
        pending = self.table.admit("client", JSON, request, 10, now)
        assert pending is not None
        self.questions.ask(pending)
        (sent,) = self.questions.turn(now)
        return sent.peer, sent.message.id

    def late(self, *, now: float) -> dict[str, Any]:
        """What becomes of the only question under way when its time is over."""
        (pending,) = self.table.overdue(now)
        self.questions.overdue(pending)
        (reply,) = self.table.take_replies()
        found: dict[str, Any] = msgspec.json.decode(reply[1])
        return found


def test_how_far_it_is() -> None:
    """As the consumer said last, in words and in numbers; one that has read everything is only late."""
    overlord = Overlord()
    overlord.questions.heard("a", Historian("g"), 0.0)
    assert overlord.ask(now=0.0)[0] == "a"
    overlord.questions.heard("a", Historian("g", SoFar(1, 1000)), 0.5)
    overlord.questions.heard("a", Historian("g", SO_FAR), 1.0)
    reply = overlord.late(now=2.0)
    assert reply["error"] == "DIMINT_TIMEOUT"
    assert reply["retriable"]
    assert reply["message"] == "the history of keys is being made: 12 % of the log is read, ask again in about 40 s"
    assert reply["so_far"] == {"done": 120, "total": 1000, "left_s": 39.2}
    overlord.questions.heard("a", Historian("g"), 2.0)
    overlord.ask(now=2.0)
    reply = overlord.late(now=4.0)
    assert (reply["message"], "so_far" in reply) == ("the past was not told in time", False)


def test_of_the_one_that_was_asked() -> None:
    """Another consumer may be further, or not have begun."""
    overlord = Overlord()
    overlord.questions.heard("b", Historian("g"), 0.0)
    overlord.questions.heard("a", Historian("g", SO_FAR), 0.1)
    peer, number = overlord.ask(now=0.1)
    overlord.questions.heard("b", Historian("g"), 1.0)
    assert peer == "a"
    assert overlord.late(now=3.0)["so_far"]["done"] == 120
    overlord.questions.heard(peer, Told(number), 3.0)  # too late: nobody waits for it
    assert overlord.table.take_replies() == []


def test_of_a_question_in_the_last_moment() -> None:
    """A client's last try may have less time than a turn takes: it is told as much as the one before."""
    overlord = Overlord()
    overlord.questions.heard("b", Historian("g"), 0.0)
    overlord.questions.heard("a", Historian("g", SO_FAR), 0.1)
    pending = overlord.table.admit("client", JSON, GetAt(id=1, key="k", at=5, timeout=0.001), 10, 0.1)
    assert pending is not None
    overlord.questions.ask(pending)
    assert overlord.late(now=0.2)["so_far"]["done"] == 120


def test_one_that_went_away() -> None:
    """Nothing is said of a consumer that nobody has heard for a while."""
    overlord = Overlord()
    overlord.questions.heard("a", Historian("g", SO_FAR), 0.0)
    overlord.ask(now=0.0)
    overlord.questions.tick(SILENT_S + 1)
    assert overlord.late(now=SILENT_S + 1)["error"] == "DIMINT_NODE_NOT_AVAILABLE"
