"""`dimint status`: what is judged healthy, and that it can be read in 80 columns whatever there is."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dimint.assignment import Assignment, Group, PartitionPlace
from dimint.log.growth import Growth
from dimint.log.port import Broker, LogHealth, TopicHealth
from dimint.status.as_text import WIDTH, count, lines, size
from dimint.status.report import LogSeen, RegistrySeen, Seen, report

A, B, C = (letter * 32 for letter in "abc")


def copy(**more: Any) -> dict[str, Any]:
    return {
        "next_offset": 5000,
        "lag": 0,
        "keys": 10,
        "digest": "d",
        "digest_at": 4096,
        "caught_up": True,
        "problem": None,
    } | more


def partition(index: int, replicas: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    master, *slaves = replicas
    return {"partition": index, "master": master, "slaves": slaves, "end": 5000, "replicas": dict(replicas)} | more


def reply(*partitions: dict[str, Any], nodes: tuple[str, ...] = (A, B)) -> dict[str, Any]:
    return {
        "generation": "g",
        "log": "kafka",
        "durability": "x",
        "log_answers": True,
        "overlords": [{"overlord_id": "h:1", "client": "tcp://h:1"}],
        "nodes": [{"node_id": id, "client": f"tcp://h:{id[:2]}", "key_count": 3, "connected": True} for id in nodes],
        "partitions": list(partitions),
    }


def registry(nodes: tuple[str, ...] = (A, B), **consumer: Any) -> RegistrySeen:
    info = {"pid": 7, "host": "h", "tables": "t", "stopped": {}, "positions": {"0": 90, "1": 10}} | consumer
    return RegistrySeen(
        overlords={"h:1": {"client": "tcp://h:1"}},
        nodes={id: {"client": f"tcp://h:{id[:2]}"} for id in nodes},
        consumers={"c": info},
        pages={"h:80": {"http": "http://h:80/"}},
        agents={"x": {}},
        supervisors={"u": {"pid": 8, "host": "h", "off": {}}},
        assignment=Assignment(3, (Group(A, (B,)),), (PartitionPlace(0), PartitionPlace(0))),
    )


def kafka(*, down: int = 0, lacking: int = 0, stopped: int = 0) -> LogSeen:
    brokers = tuple(Broker(id, f"h:{id}", id > down) for id in (1, 2, 3))
    topics = (TopicHealth("dimint.kv", 16, 3, 2, lacking, stopped), TopicHealth("dimint.status", 2, 3, 2, 0, 0))
    growth = {"dimint.kv": Growth(1_234_567.0, 5e9, 7200.0)}
    return LogSeen("kafka", "kafka://h:1", "g", LogHealth("any 1 broker", brokers, topics), growth, {"dimint.status": [100, 10]})


def look(**more: Any) -> Seen:
    whole: dict[str, Any] = {"registry": registry(), "log": kafka(), "asked": {"h:1": None}}
    whole["reply"] = reply(*(partition(index, {A: copy(), B: copy()}) for index in range(2)))
    return Seen(**whole | more)


def test_a_healthy_system() -> None:
    """Everything answers and is equal; the consumer's lag is what the log has beyond its positions."""
    found = report(look())
    assert (found["healthy"], found["problems"]) == (True, [])
    assert [one["digests"] for one in found["partitions"]] == ["equal", "equal"]
    assert (found["consumers"][0]["lag"], found["agents"], found["durability"]) == (10, 1, "any 1 broker")
    assert [(one["masters"], one["slaves"], one["caught_up"]) for one in found["nodes"]] == [(2, 0, 2), (0, 2, 2)]
    text = lines(found)
    assert text[0].split() == ["state", "healthy"]
    assert any("2 of 3" in line and "~1.2M" in line and "~4.7 GiB" in line for line in text)
    assert any("seen over 2 h" in line for line in text)


def test_every_part_that_is_down_is_named() -> None:
    """One line for each, and the rest is shown all the same."""
    stopped = registry(stopped={"1": "offset 9: y"})
    for seen, said in (
        (look(log=kafka(down=1, lacking=5)), ["broker 1 is down", "dimint.kv: 5 of 16 partitions lack a copy in sync"]),
        (look(log=kafka(stopped=2)), ["dimint.kv: 2 of 16 partitions take no append"]),
        (look(registry=registry(nodes=(A,))), ["node bbbbbbbb is down"]),
        (look(asked={"h:1": None, "h:2": "no answer within 3 s"}), ["the overlord at h:2 does not answer: no answer within 3 s"]),
        (look(failures=["the log does not answer: x"], log=None), ["the log does not answer: x"]),
        (
            look(registry=stopped),
            ["the consumer of t has stopped reading dimint.status/1: offset 9: y"],
        ),
        (
            look(
                registry=registry()._replace(supervisors={"u": {"host": "h", "off": {"web": {"why": "web ended", "log": "/w"}}}})
            ),
            ["web of dimint up on h is off, tried again every few minutes: web ended; see /w"],
        ),
        (look(reply=reply()), []),
    ):
        found = report(seen)
        assert found["problems"] == said
        assert found["healthy"] is not bool(said)
        assert "NOT HEALTHY" in lines(found)[0] or not said


def test_what_is_wrong_with_copies() -> None:
    """Different digests at one offset, a disputed or halted copy, none that has caught up, one that is missing."""

    def problems(*partitions: dict[str, Any]) -> tuple[list[str], str]:
        found = report(look(reply=reply(*partitions)))
        return found["problems"], found["partitions"][0]["digests"]

    assert problems(partition(0, {A: copy(), B: copy(digest="e")})) == (["partition 0: its copies differ"], "differ")
    assert problems(partition(0, {A: copy(), B: copy(digest="e", digest_at=8192)})) == ([], "not yet")
    assert problems(partition(0, {A: copy()}))[1] == "one copy"
    text = "its contents differ from other replicas at offset 4096"
    assert problems(partition(0, {A: copy(), B: copy(problem=text)})) == ([f"partition 0 on node bbbbbbbb: {text}"], "disputed")
    behind = copy(caught_up=False, lag=500)
    assert problems(partition(0, {A: behind, B: behind}))[0] == ["partition 0: no copy has caught up, so reads have to wait"]
    assert problems(partition(0, {A: copy()}, slaves=[B]))[0] == ["partition 0: node bbbbbbbb tells nothing of its copy"]
    assert problems({**partition(0, {A: copy()}), "master": None})[0] == ["partition 0 has no master"]


def test_progress_of_a_node_that_catches_up_is_no_problem() -> None:
    """It is shown by copies, records and percent."""
    behind = copy(caught_up=False, lag=15_000, next_offset=5000)
    found = report(look(reply=reply(partition(0, {A: copy(), B: behind}), partition(1, {A: copy(), B: copy()}))))
    assert found["healthy"]
    assert any("1 of 2 caught up, 15.0k records behind (40 %)" in line for line in lines(found))


def test_what_a_copy_is_built_from_is_shown() -> None:
    """From whom or from the log, how far, how fast; what has not begun takes no row."""
    ways = [
        {"from": "peer", "node": A, "percent": 12.6, "rate": 3 << 20, "unit": "bytes/s"},
        {"from": "log", "node": None, "percent": 99.0, "rate": 1234.4, "unit": "records/s"},
        {"from": "peer", "node": None, "percent": 0.0, "rate": 0.0, "unit": "bytes/s"},
    ]
    parts = [partition(index, {A: copy(), B: copy(caught_up=False, building=way)}) for index, way in enumerate(ways)]
    found = report(look(reply=reply(*parts)))
    assert [one["partition"] for one in found["nodes"][1]["building"]] == [0, 1, 2]
    shown = [line.strip() for line in lines(found) if "partition " in line]
    assert shown[:2] == ["partition 0 from node aaaaaaaa: 13 %, 3.0 MiB/s", "partition 1 from the log: 99 %, 1234 records/s"]


def test_without_any_overlord() -> None:
    """Registry and log alone still tell the placement."""
    found = report(look(reply=None, asked={"h:1": "no answer within 3 s"}, log=kafka()._replace(ends={"dimint.kv": [7, 8]})))
    assert [(one["master"], one["end"], one["lag"]) for one in found["partitions"]] == [(A, 7, None), (A, 8, None)]
    assert found["overlords"][0]["answers"] is False


def test_nothing_at_all() -> None:
    """A report of nobody is a report."""
    found = report(Seen(None, None, {"h:5556": "no answer within 3 s"}, None))
    assert found["problems"] == ["the overlord at h:5556 does not answer: no answer within 3 s"]
    assert lines(found)


def test_overlords_alone_do_not_say_that_there_are_no_consumers() -> None:
    """What only the registry knows is unknown without it, and not none."""
    found = report(look(registry=None, log=None))
    assert (found["consumers"], found["pages"], found["agents"]) == (None, None, None)
    assert {line.split()[0]: line.split()[1] for line in lines(found) if line.startswith(("consumers", "pages", "agents"))} == {
        "consumers": "?", "pages": "?", "agents": "?",
    }  # fmt: skip


def test_many_partitions_share_rows() -> None:
    """1024 partitions of two groups are two rows, one that differs gets its own, and each can be asked for."""
    parts = [partition(index, {A: copy(), B: copy()} if index % 2 else {B: copy(), A: copy()}) for index in range(1024)]
    parts[7] = partition(7, {A: copy(), B: copy(digest="e")})
    found = report(look(reply=reply(*parts)))
    text = lines(found)
    at = next(index for index, line in enumerate(text) if line.startswith("partitions"))
    assert [line.split()[0] for line in text[at + 2 :]] == ["512", "511", "7"]
    assert len(lines(found, every_partition=True)) == len(text) + 1021
    sixteen = report(look(reply=reply(*parts[:16])))
    assert [line.split()[0] for line in lines(sixteen)[-16:]] == [str(index) for index in range(16)]


@given(
    st.lists(st.text(max_size=300), max_size=30),
    st.text(max_size=200),
    st.integers(0, 2**63),
    st.integers(1, 1100),
)
def test_no_line_is_wider_than_80_columns(problems: list[str], name: str, number: int, partitions: int) -> None:
    """Whatever names, numbers and problems there are."""
    one = copy(next_offset=number, lag=number, caught_up=False)
    parts = [partition(index, {A: one, B: one, C: one}) for index in range(partitions)]
    seen = look(
        registry=registry(tables=name, host=name, pid=number),
        reply=reply(*parts, nodes=(A, B, C)),
        failures=problems,
        log=kafka(down=2)._replace(url=name, generation=name),
    )
    assert max(map(len, lines(report(seen)))) <= WIDTH


def test_numbers_for_people() -> None:
    """Six characters at most, binary units for bytes."""
    assert [count(number) for number in (None, 0, 9999, 10_000, 999_940, 999_960, 2.5e12)] == [
        "?", "0", "9999", "10.0k", "999.9k", "1.0M", "2.5T",
    ]  # fmt: skip
    assert [size(number) for number in (0, 1023, 1024, 150 << 10, 5 << 30, 3 << 50)] == [
        "0 B", "1023 B", "1.0 KiB", "150 KiB", "5.0 GiB", "3072.0 TiB",
    ]  # fmt: skip
