"""A node as a process on the embedded log: fed by a writer, told what to hold by the registry, read at its own door."""

from pathlib import Path

import pytest

from dimint.batch import By
from dimint.door import (
    Answer,
    Answers,
    AskOutcomes,
    Due,
    Hello,
    Outcome,
    Outcomes,
    Progress,
    Read,
    Reads,
    Welcome,
    decode_from_node,
    encode,
)
from dimint.node.replica import META, read_meta
from dimint.node.store import Store
from dimint.transport import Context, Door, Peer
from tests.support.node_process import NodeProcess, Surroundings, surroundings
from tests.support.placing import placed
from tests.support.system import OldClient, wait_until


def _started(around: Surroundings) -> NodeProcess:
    """A node that is a member; it says `ready` only after a while, because no overlord greets it."""
    known = set(around.registry.members("node"))
    node = NodeProcess(around.directory)
    wait_until(lambda: set(around.registry.members("node")) - known, 20, "the node joins")
    return node


def test_a_node_serves_what_the_log_says(tmp_path: Path) -> None:
    """Reads with a position see the writes before it, at once after an assignment and after a kill."""
    with surroundings(tmp_path) as around:
        first = around.set("a", [1, 2])
        node = _started(around)
        try:
            address = around.node_address(node.id)
            with OldClient(address) as client:
                assert client("get", key="a")["error"] == "DIMINT_NODE_NOT_AVAILABLE"
                around.assign(1, [node.id])
                wait_until(lambda: not client("get", key="a").get("moved"), 10, "the node takes up its partitions")
                assert client("get", key="a", min_position=first)["value"] == [1, 2]
                for number in range(50):
                    token = around.set("a", number)
                    reply = client("get", key="a", min_position=token)
                    assert reply["value"] == number
                token = around.set("b", "strong")
                assert client("get", key="b", consistency="strong") == {"value": "strong"}
                assert client("mget", keys=["a", "b", "none"], min_position=token)["values"] == {"a": 49, "b": "strong"}
                assert client("scan", prefix="")["items"] == [["a", 49], ["b", "strong"]]
                assert client("set", key="a", value=1)["error"] == "DIMINT_NOT_FOUND"
            node.kill()
            last = around.set("a", "while it was dead")
            again = _started(around)
            try:
                assert again.id == node.id
                with OldClient(around.node_address(node.id)) as client:
                    wait_until(lambda: not client("get", key="a").get("moved"), 10, "the node takes up its partitions")
                    assert client("get", key="a", min_position=last, timeout=10)["value"] == "while it was dead"
                    assert client("get", key="b")["value"] == "strong"
            finally:
                assert again.stop() == 0
        finally:
            node.kill()


def test_a_second_node_on_a_directory_is_refused(tmp_path: Path) -> None:
    """One line says why, and the exit code that starting again cannot help."""
    with surroundings(tmp_path) as around:
        node = _started(around)
        try:
            second = NodeProcess(tmp_path)
            assert "in use by another node" in second.ready()
            assert second.end() == 2
            assert "Traceback" not in second.messages()
        finally:
            node.stop()


class _Overlord:
    """An overlord's node door, without the overlord."""

    def __init__(self, around: Surroundings, context: Context) -> None:
        self.door: Door = context.door()
        address = self.door.bind("127.0.0.1", 0)
        self.poller = context.poller()
        self.poller.add(self.door)
        self.writer = around.writer.incarnation
        self.membership = around.registry.join(
            "overlord", "127.0.0.1:1", {"client": "tcp://127.0.0.1:1", "node": address, "writer": self.writer.hex()}
        )
        self.peer: Peer | None = None

    def next(self, kind: type) -> object:
        """The next message of a kind; Hello is answered."""
        for _ in range(400):
            for message in self.door.receive(1) if self.poller.wait(0.05) else []:
                assert message.frame is not None
                found = decode_from_node(message.frame)
                if isinstance(found, Hello):
                    self.peer = message.peer
                    self.door.send(message.peer, encode(Welcome("127.0.0.1:1", self.writer)))
                if type(found) is kind:
                    return found
        raise AssertionError(f"no {kind.__name__} came")

    def send(self, message: Reads | AskOutcomes) -> None:
        assert self.peer is not None
        self.door.send(self.peer, encode(message))

    def close(self) -> None:
        self.poller.remove(self.door)
        self.poller.close()
        self.door.close()


def test_a_node_talks_to_overlords(tmp_path: Path) -> None:
    """It greets, reports progress, answers reads that wait, pushes outcomes as master and tells them when asked."""
    context = Context()
    with surroundings(tmp_path) as around:
        overlord = _Overlord(around, context)
        node = NodeProcess(tmp_path)
        a, t = placed("a", 0, around.genesis), placed("t", 1, around.genesis)
        try:
            hello = overlord.next(Hello)
            assert isinstance(hello, Hello)
            assert (hello.node, hello.generation) == (node.id, around.genesis.generation)
            around.assign(1, [node.id])
            progress = overlord.next(Progress)
            while not (isinstance(progress, Progress) and progress.replicas and all(one.caught_up for one in progress.replicas)):
                progress = overlord.next(Progress)
            assert node.ready() == "ready"
            overlord.send(Reads([Read(1, 0, "get", [a], min_offset=1, wait_ms=20_000, strict=True)]))
            done = around.append(0, [["kv.incr", a, 0, 0, 1, 5]], client="me")
            pushed = overlord.next(Outcomes)
            assert isinstance(pushed, Outcomes)
            assert (pushed.writer, pushed.number, pushed.offset) == (overlord.writer, done.number, done.offset)
            assert pushed.outcomes[0].name == "applied"
            assert pushed.outcomes[0].value == "5"
            overlord.send(AskOutcomes(0, overlord.writer, done.number))
            assert overlord.next(Outcomes) == pushed
            again = around.append(0, [["kv.incr", a, 0, 0, 1, 5], ["kv.resolve", a, 0, 0, 2]], client="me")
            repeated = overlord.next(Outcomes)
            assert isinstance(repeated, Outcomes)
            assert repeated.outcomes == {0: pushed.outcomes[0], 1: Outcome("unused")}
            assert again.offset == 1
            around.append(1, [["kv.set", t, 0, 0, None, b"J1", 1, 0]])
            due = overlord.next(Due)
            assert isinstance(due, Due)
            ((key, version),) = due.keys
            assert (due.partition, key) == (1, t)
            end = around.append(1, [["kv.expire", t, 0, 0, version]]).offset + 1
            overlord.send(Reads([Read(2, 1, "get", [t], min_offset=end, wait_ms=20_000, strict=True)]))
            answers = overlord.next(Answers)
            while isinstance(answers, Answers) and answers.answers[0].id != 2:
                answers = overlord.next(Answers)
            assert isinstance(answers, Answers)
            assert answers == Answers([Answer(2, end, [], age_ms=answers.answers[0].age_ms)])
        finally:
            code = node.stop()
            overlord.close()
            context.close()
        assert code == 0, node.messages()


def test_rebuild_gives_the_same_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rebuilt beside the live store from the log alone, every digest is the same, and the new store is in place."""
    from dimint.node.cli import rebuild
    from dimint.settings import NodeSettings

    with surroundings(tmp_path) as around:
        store = Store(tmp_path / "nodes" / "1")
        from dimint.node.replica import Replica

        for number in range(40):
            around.set(f"key {number % 7}", number)
        replicas = [Replica(partition, around.genesis, store.partition(partition)) for partition in range(2)]
        for partition, replica in enumerate(replicas):
            replica.apply(around.log.read("dimint.kv", partition, 0))
        store.commit()
        digests = [f"{replica.digest:032x}" for replica in replicas]
        store.close()
        rebuild(
            NodeSettings(
                data_dir=tmp_path,
                log=str(tmp_path),
                zookeeper_hosts=(),
                hash_range=None,
                partitions=None,
                given=frozenset(),
                node_name="1",
                port_for_reads=0,
                heartbeat=2.0,
                bind="127.0.0.1",
                advertise=None,
                allow_plain=False,
                overlord_host=None,
                overlord_port=5557,
            )
        )
        lines = capfd.readouterr().out.splitlines()
        assert [line.split("digest ")[1] for line in lines] == [f"{digest}, same as before" for digest in digests]
        again = Store(tmp_path / "nodes" / "1")
        for partition, digest in enumerate(digests):
            meta = read_meta(again.partition(partition).side.get(META))
            assert meta is not None
            assert f"{meta.digest:032x}" == digest
        again.close()
        assert around.by == By(None, "here", "test")
