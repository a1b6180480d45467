"""A node's connections to overlords that come and go."""

from dimint.door import Answer, Answers, Hello
from dimint.node.links import Links
from dimint.node.membership_view import OverlordInfo
from dimint.transport import Context


def test_an_answer_for_an_overlord_that_is_gone_is_dropped() -> None:
    """A read may wait for its position longer than its overlord lives; answering it then harms nobody."""
    context = Context()
    poller = context.poller()
    links = Links(context, poller, Hello("n", "g", "tcp://127.0.0.1:1"))
    assert links.follow({"o": OverlordInfo("tcp://127.0.0.1:1", "w")}, 0.0) == []
    (link,) = links.follow({}, 1.0)
    link.send(Answers([Answer(1, 0, [])]))
    links.close()
    poller.close()
    context.close()
