"""Programs of one's own that read the log: known by name, and the log is kept for them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.events import STATUS_TOPIC
from dimint.log.port import TopicPartition
from dimint.replay import LoggedEvent, SqliteProjection, known_reader, run
from tests.support.replay_log import REAL, made_log, new_location


class Kinds(SqliteProjection):
    """How many events of the status topic there are of each kind."""

    topics = (STATUS_TOPIC,)
    schema = "CREATE TABLE kinds(kind TEXT PRIMARY KEY, events INTEGER NOT NULL)"

    def apply(self, event: LoggedEvent) -> None:
        self.db.execute("INSERT INTO kinds VALUES (?, 1) ON CONFLICT DO UPDATE SET events = events + 1", (event.kind,))

    def counted(self) -> Counter[str]:
        return Counter(dict(self.db.execute("SELECT * FROM kinds")))


@pytest.mark.parametrize("backend", REAL)
def test_what_a_reader_needs_is_not_trimmed(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whether it runs or not; it comes back and finds everything; what it has taken in may go, and all once it is forgotten."""
    location, data = new_location(backend, tmp_path), tmp_path / "data"
    log = made_log(location, 5, 200)
    where = [f"--log={location}", f"--data_dir={data}"]
    here = {"log": location, "data_dir": str(data)}
    assert main(["rebuild", "status", *where]) == 0
    places = [TopicPartition(STATUS_TOPIC, at) for at in range(log.describe().topics[STATUS_TOPIC])]
    ends = {place: log.bounds(*place).end for place in places}
    full = max(ends, key=ends.__getitem__)

    def dimint(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, *where]) == code, capfd.readouterr().err
        found = capfd.readouterr()
        return found.err if code else found.out

    everything = ",".join(f"{topic}/{at}@{end}" for (topic, at), end in ends.items())
    trim = ["trim", STATUS_TOPIC, f"--before={everything}", "--yes"]
    with Kinds(tmp_path / "kinds.sqlite") as kinds, known_reader("team/kinds", log, **here) as reader:
        run(kinds, log, until={full: 10}, reader=reader)
        first = kinds.counted()
    assert 0 < first.total() < 200
    problem = dimint(*trim, code=1)
    assert "the reader 'team/kinds' of" in problem
    assert "needs what stands from" in problem
    (told,) = [json.loads(line) for line in dimint("reader", "list", "--json").splitlines()]
    assert (told["name"], told["behind"] > 0) == ("team/kinds", True)
    assert f"{full.topic}/{full.partition}@10" in told["needs"]
    assert "records behind" in dimint("reader", "list")
    dimint(*trim, "--as-far-as-safe")
    assert log.bounds(*full).start == 10

    with Kinds(tmp_path / "kinds.sqlite") as kinds, known_reader("team/kinds", log, **here) as reader:
        run(kinds, log, reader=reader)
        assert kinds.counted()["host.sample"] == 200
    assert json.loads(dimint("reader", "list", "--json"))["behind"] == 0

    needs = f"{full.topic}/{full.partition}@12"
    dimint("reader", "tell", "in C", needs)
    assert "the reader 'in C' of" in dimint(*trim, code=1)
    assert "is not a position" in dimint("reader", "tell", "in C", "12", code=2)
    assert "outside" in dimint("reader", "tell", "in C", f"{full.topic}/{full.partition}@9999999", code=1)
    assert "there is no reader 'in D'" in dimint("reader", "forget", "in D", code=2)
    dimint("reader", "forget", "in C")
    dimint(*trim)
    assert {place: log.bounds(*place).start for place in places} == ends
    log.close()
