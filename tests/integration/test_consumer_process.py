"""The status consumer as a real process on a real embedded log: killed, refused, rebuilt, switched."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dimint.cli_host import host as host_commands
from dimint.consumers.cli import rebuild
from dimint.consumers.digest import table_digest
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.events import STATUS_TOPIC
from dimint.log.embedded import EmbeddedLog
from dimint.log.opening import Genesis, GenesisSettings, genesis
from dimint.writer import BatchWriter, Outgoing
from tests.support.consumer_process import settings_for
from tests.support.samples import Machine, registered
from tests.support.system import wait_until

ROOT = Path(__file__).parent.parent.parent


class Agents:
    """Some hosts that publish straight to the log, as fast as asked."""

    def __init__(self, data_dir: Path, hosts: int) -> None:
        self.log = EmbeddedLog(data_dir, clock=time)
        self.genesis: Genesis = genesis(self.log, wanted=GenesisSettings(), clock=time, host="test", process="test")
        self.writer = BatchWriter(self.log, clock=time, host="test", process="test")
        self.machines = [Machine(seed, gpus=2, cores=8) for seed in range(hosts)]
        for machine in self.machines:
            self._put(machine, registered(machine.id, f"gpu-{machine.id[:3]}.lab", facts=machine.facts), time.time_ns())

    def publish(self, rounds: int, pause_s: float = 0.0) -> None:
        """So many samples of every host."""
        for _ in range(rounds):
            for machine in self.machines:
                for taken_ns, event in machine.events(1):
                    self._put(machine, event, taken_ns)
            time.sleep(pause_s)

    def ends(self) -> dict[int, int]:
        """End of every partition that has anything."""
        bounds = {at: self.log.bounds(STATUS_TOPIC, at) for at in range(self.genesis.status_partitions)}
        return {at: end for at, (start, end) in bounds.items() if end > start}

    def close(self) -> None:
        self.writer.close()
        self.log.close()

    def _put(self, machine: Machine, event: list[object], time_ns: int) -> None:
        partition = self.genesis.status_partition(machine.id)
        self.writer.append_and_wait(Outgoing(STATUS_TOPIC, partition, (self.writer.by,), (event,), time_ns=time_ns), 10)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    """Five hosts on an embedded log in tmp_path."""
    made = Agents(tmp_path, 5)
    yield made
    made.close()


@contextlib.contextmanager
def consumer(data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """A running consumer process, killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.support.consumer_process", str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_killed_again_and_again_it_loses_and_doubles_nothing(agents: Agents, tmp_path: Path) -> None:
    """kill -9 in the middle of commits: in the end the tables are those that a rebuild makes."""
    publishing = threading.Thread(target=agents.publish, args=(150, 0.01))
    publishing.start()
    reader = StatusReader(tmp_path / TABLES_FOLDER)
    wait = random.Random(3)
    for _ in range(4):
        with consumer(tmp_path) as process:
            before = reader.version()
            # on a busy machine everything may be published, and read, before this consumer is up
            wait_until(lambda before=before: reader.version() != before or not publishing.is_alive(), 20, "a commit")
            time.sleep(wait.random() * 0.4)
            process.kill()
    publishing.join()
    with consumer(tmp_path) as process:
        agents.publish(1)  # so that it has to be up before it is stopped
        wait_until(lambda: reader.positions() == agents.ends(), 20, "all is read")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    for machine in agents.machines:
        assert [stored.seq for stored in reader.last(machine.id, 1000)] == list(range(1, 152))
    digest = table_digest(tmp_path / TABLES_FOLDER)
    assert rebuild(settings_for(tmp_path), into=tmp_path / "look").digest == digest
    assert rebuild(settings_for(tmp_path)).digest == digest == table_digest(tmp_path / TABLES_FOLDER)
    assert len(reader.hosts()) == 5, "the reader followed the switch"
    reader.close()


def test_a_running_consumer_follows_a_rebuild_and_refuses_a_second(agents: Agents, tmp_path: Path) -> None:
    """The second consumer ends in one line; after a rebuild the first goes on with the new tables."""
    reader = StatusReader(tmp_path / TABLES_FOLDER)
    with consumer(tmp_path) as process:
        agents.publish(3)
        wait_until(lambda: reader.positions() == agents.ends(), 20, "all is read")
        with consumer(tmp_path) as second:
            _, errors = second.communicate(timeout=20)
            assert second.returncode == 2
            assert len(errors.splitlines()) == 1
            assert "another status consumer" in errors
        sequence, hosts = reader.changed_since(-1)
        assert len(hosts) == 5
        built = rebuild(settings_for(tmp_path))
        assert built.path.name == "status-000002.db"
        assert reader.changed_since(sequence)[1] == hosts, "after a switch every host may look different"
        sequence, _ = reader.changed_since(-1)
        start = time.monotonic()
        agents.publish(1)
        wait_until(lambda: reader.positions() == agents.ends(), 20, "all is read")
        assert time.monotonic() - start < 5
        assert reader.changed_since(sequence)[1] == hosts
        assert sorted(path.name for path in (tmp_path / TABLES_FOLDER).glob("*.db")) == ["status-000002.db"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    reader.close()


def test_hosts_are_changed_from_a_shell(agents: Agents, tmp_path: Path) -> None:
    """Listed, renamed, merged, taken back and forgotten: each command's event is in the log, and a rebuild agrees."""

    def run(*arguments: str) -> str:
        shown = CliRunner().invoke(host_commands, [arguments[0], f"--data_dir={tmp_path}", *arguments[1:]])
        if shown.exception is not None and not isinstance(shown.exception, SystemExit):
            return f"{type(shown.exception).__name__}: {shown.exception}"
        return shown.output

    reader = StatusReader(tmp_path / TABLES_FOLDER)
    with consumer(tmp_path):
        agents.publish(2)
        wait_until(lambda: reader.positions() == agents.ends(), 20, "all is read")
        first, second, third = (machine.id for machine in agents.machines[:3])
        assert len(run("list").splitlines()) == 5
        assert run("rename", first, "big.one").startswith("host.renamed")
        wait_until(lambda: any(row.name == "big_one" for row in reader.hosts()), 20, "the new name")
        run("merge", second, "big.one")
        run("forget", third, "--yes")
        left = {machine.id for machine in agents.machines} - {second, third}
        wait_until(lambda: {row.id for row in reader.hosts()} == left, 20, "one host for two, and one less")
        assert [json.loads(line)["merged_into"] for line in run("list", "--all", "--json").splitlines()].count(first) == 1
        assert "there is no host" in run("rename", "nobody", "x")
        assert "into itself" in run("merge", first, first)
        assert "itself merged" in run("merge", first, second)
        run("merge", second, "--undo")
        run("rename", first)
        wait_until(lambda: len(reader.hosts()) == 4, 20, "four hosts")
    digest = table_digest(tmp_path / TABLES_FOLDER)
    assert rebuild(settings_for(tmp_path), into=tmp_path / "look").digest == digest
    reader.close()
