"""A whole cluster under a mixed load, of which one process after the other is killed or paused, and a judgement at the end."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dimint.events import KV_TOPIC
from tests.support.history_load import Load
from tests.support.judge import all_values, expect_equal_stores, expect_replicas_at_the_end, expect_sound, longest_gap
from tests.support.kv_system import KvSystem
from tests.support.porcupine import NoPorcupine, judge
from tests.support.services.kafka import KafkaCluster, TopicLook
from tests.support.services.process import JavaServer
from tests.support.services.zookeeper import ZooKeeperEnsemble

__all__ = ["KINDS", "Chaos"]

KINDS = ("overlord", "node", "broker leader", "broker follower", "zookeeper")
SESSION_S = 4
PATIENCE_S = 90.0
LATE_S = 6.0
WHOLE_S = 60.0
"""How long the brokers may take to have all copies again, before the next broker is hit."""


class Chaos:
    """Three brokers, three ZooKeeper servers, two overlords, three nodes, sixteen clients.

    `run` hits every kind of process once, then any, until `seconds` are over, each for `down_s` (least, most) seconds.
    """

    def __init__(self, directory: Path, *, seed: int, say: Callable[[str], None] = print) -> None:
        self.directory, self.seed = directory, seed
        self._say = say
        self._rng = random.Random(seed)
        self._topic = f"{os.urandom(6).hex()}"
        self.faults: Counter[str] = Counter()

    def run(self, *, seconds: float, down_s: tuple[float, float], windows: int, pause_s: float) -> None:
        """Each client waits `pause_s` after an operation. Raises AssertionError for whatever does not hold."""
        quick = {"broker.session.timeout.ms": 2000, "broker.heartbeat.interval.ms": 300}
        with ExitStack() as stack:
            self._kafka = stack.enter_context(KafkaCluster(3, extra=quick))
            self._zookeeper = stack.enter_context(ZooKeeperEnsemble(3, tick_ms=200))
            log_at = f"{self._kafka.url}/{self._topic}"
            flags = [f"--log={log_at}", f"--zookeeper_hosts={self._zookeeper.hosts}", f"--zookeeper_session={SESSION_S}"]
            self._system = KvSystem(self.directory, overlords=2, nodes=3, flags=flags)
            self._system.flags_of = {f"overlord-{number}": ["--max_slave_count=1"] for number in (1, 2)}
            stack.callback(self._system.stop)
            self._system.start_all()
            self._look = stack.enter_context(TopicLook(self._kafka.servers, f"{self._topic}.{KV_TOPIC}"))
            load = Load(*self._system.addresses, seed=self.seed, sets=2, pause_s=pause_s, late_s=LATE_S, patience_s=PATIENCE_S)
            began = time.monotonic()
            load.start()
            try:
                self._disturb(began, seconds, down_s)
            finally:
                load.stop()
            self._report(load, time.monotonic() - began)
            history = self.directory / "history.jsonl"
            history.write_text("".join(json.dumps(op._asdict()) + "\n" for op in load.ops))
            assert not load.problems, (self.seed, len(load.problems), load.problems[:5])
            address = f"tcp://{self._system.address}"
            expect_replicas_at_the_end(address, 60)
            values = all_values(address)
            self._system.stop()
            verdict = expect_sound(log_at, load, values, self.seed)
            expect_equal_stores(self.directory, verdict.ends)
            try:
                results, illegal = judge(load.ops, windows=windows, seed=self.seed)
            except NoPorcupine as why:
                self._say(f"porcupine: skipped: {why}")
            else:
                self._say(f"porcupine: {dict(results)}")
                assert not illegal, (self.seed, illegal, str(history))

    def _disturb(self, began: float, seconds: float, down_s: tuple[float, float]) -> None:
        first = list(KINDS)
        self._rng.shuffle(first)
        time.sleep(1.0)
        while first or time.monotonic() - began < seconds:
            kind = first.pop() if first else self._rng.choice(KINDS)
            self._hit(kind, self._rng.choice(["kill", "pause"]), self._rng.uniform(*down_s), began)
            time.sleep(self._rng.uniform(0.2, 1.0))
        time.sleep(2.0)

    def _hit(self, kind: str, how: str, down_s: float, began: float) -> None:
        if kind.startswith("broker"):
            self._look.wait_whole(WHOLE_S)
            leader, follower = self._look.leader_and_follower(self._rng.randrange(self._look.partitions))
            number = leader if kind == "broker leader" else follower
            broker = self._kafka.brokers[number - 1]
            name, down, up = f"{kind} {number}", *_server(broker.server, how)
        elif kind == "zookeeper":
            number = self._rng.randrange(3)
            name, down, up = f"zookeeper {number + 1}", *_server(self._zookeeper.servers[number].server, how)
        else:
            name = self._rng.choice(sorted(each for each in self._system.processes if each.startswith(kind)))
            down, up = self._process(name, how)
        self._say(f"{time.monotonic() - began:6.1f} s  {how} {name} for {down_s:.1f} s")
        self.faults[f"{how} {kind}"] += 1
        down()
        try:
            time.sleep(down_s)
        finally:
            up()

    def _process(self, name: str, how: str) -> tuple[Callable[[], None], Callable[[], None]]:
        if how == "kill":
            return lambda: self._system.kill(name), lambda: self._system.start(name)
        process = self._system.processes[name]
        return lambda: process.send_signal(signal.SIGSTOP), lambda: process.send_signal(signal.SIGCONT)

    def _report(self, load: Load, seconds: float) -> None:
        kinds = Counter(f"{op.level} {op.kind}".strip() for op in load.ops)
        counts = Counter(op.status for op in load.ops)
        self._say(f"{len(load.ops)} operations in {seconds:.0f} s: {dict(counts)}; {dict(kinds)}")
        self._say(f"faults: {dict(self.faults)}")
        gaps = {
            "writes": longest_gap(load.ops, lambda op: op.kind != "get" and op.status == "ok"),
            "strong reads": longest_gap(load.ops, lambda op: op.level == "strong" and op.status == "ok"),
            "weak reads": longest_gap(load.ops, lambda op: op.level == "weak" and op.status == "ok"),
        }
        self._say("longest time without any: " + ", ".join(f"{name} {gap:.1f} s" for name, gap in gaps.items()))


def _server(server: JavaServer, how: str) -> tuple[Callable[[], None], Callable[[], None]]:
    return (server.kill, server.start) if how == "kill" else (server.pause, server.resume)
