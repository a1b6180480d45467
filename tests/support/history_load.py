"""Clients of every kind that record what they did and saw, for tests.support.history."""

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from dimint.client import AsyncClient, Client
from dimint.errors import DimintError, OutcomeUnknown, Partial, RequestError
from dimint.wire import parse_token
from tests.support.history import ABSENT, Op

__all__ = ["COUNTERS", "REGISTERS", "Load"]

REGISTERS = [f"r{number}" for number in range(12)]
COUNTERS = [f"c{number}" for number in range(4)]
TIMEOUT_S = 6.0
LATE_S = 1.5
"""How much later than its deadline a library's call may end, on a busy machine."""
RESEND_S = 0.8
PAUSE_S = 0.003
PATIENCE_S = 30.0
UNKNOWN = ("DIMINT_OUTCOME_UNKNOWN", "DIMINT_PARTIAL")


class Load:
    """Runs clients until `stop`; `ops` is the history, `problems` what broke a rule at once, `unknown_by` per counter what
    increments of unknown outcome would add.

    `addresses` are overlords': libraries get all of them, a raw socket goes to the next one when it is not answered. `sets`
    times eight clients run, each waiting `pause_s` after an operation; a library's call may end `late_s` after its deadline,
    and raw clients insist on an answer for `patience_s`.
    """

    def __init__(
        self,
        *addresses: str,
        seed: int,
        sets: int = 1,
        pause_s: float = PAUSE_S,
        late_s: float = LATE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.seed = seed
        self._addresses = [address.removeprefix("tcp://") for address in addresses]
        self._sets, self._pause_s, self._late_s, self._patience_s = sets, pause_s, late_s, patience_s
        self.ops: list[Op] = []
        self.problems: list[str] = []
        self.added: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.unknown_by: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        runs: list[Callable[[str, random.Random], None]] = [
            *(self._library, self._library, self._asyncio),
            *(self._numbered, self._numbered, self._old, self._old, self._many_at_once),
        ]
        for number, run in enumerate(runs * self._sets):
            name = f"{run.__name__.strip('_')}{number}"
            thread = threading.Thread(target=self._guard, args=(run, name, random.Random(f"{self.seed}.{number}")), name=name)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the clients; each finishes what it has under way."""
        self.over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def _guard(self, run: Callable[[str, random.Random], None], name: str, rng: random.Random) -> None:
        try:
            run(name, rng)
        except Exception as error:
            self.problems.append(f"{name}: {error!r}")
            raise

    def record(self, op: Op) -> None:
        """One operation that has ended."""
        with self._lock:
            self.ops.append(op)
            if op.kind == "incr" and op.status != "refused":
                (self.added if op.status == "ok" else self.unknown_by)[op.key] += op.written or 1

    # --- the library -------------------------------------------------------------------------------------------------
    def _library(self, name: str, rng: random.Random) -> None:
        with Client(self._addresses, timeout=TIMEOUT_S) as client:
            for number in itertools.count():
                if self.over.is_set():
                    return
                for op in self._timed(lambda number=number: _library_step(client, name, number, rng)):  # type: ignore[misc]
                    self.record(op)
                time.sleep(self._pause_s)

    def _timed(self, step: Callable[[], list[Op]]) -> list[Op]:
        started = time.monotonic()
        ops = step()
        self._expect_in_time(started, ops)
        return ops

    def _expect_in_time(self, started: float, ops: list[Op]) -> None:
        took = max(op.ended for op in ops) - started
        if took > 2 * TIMEOUT_S + self._late_s or any(op.ended - op.started > TIMEOUT_S + self._late_s for op in ops):
            self.problems.append(f"ended {took:.1f} s after it began: {ops}")

    def _asyncio(self, name: str, rng: random.Random) -> None:
        async def use() -> None:
            async with AsyncClient(self._addresses, timeout=TIMEOUT_S) as client:
                await asyncio.gather(*(self._task(client, name, task, rng) for task in range(3)))

        asyncio.run(use())

    async def _task(self, client: AsyncClient, name: str, task: int, rng: random.Random) -> None:
        for number in itertools.count():
            if self.over.is_set():
                return
            started = time.monotonic()
            what, key, written = _choose(rng, f"{name}.{task}-{number}")
            op = Op(name, what, key, started, 0.0, "ok", written, client=client.client_id)
            try:
                if what == "get":
                    level = rng.choice(["session", "strong", "weak"])
                    value, version = await client.get_versioned(key, consistency=level)
                    op = op._replace(seen=value if version else ABSENT, version=version, level=level)
                elif what == "incr":
                    op = op._replace(seen=await client.incr(key, written))
                elif what == "delete":
                    await client.delete(key)
                elif what == "set":
                    await client.set(key, written)
                else:
                    op = op._replace(kind="absent", seen=await client.set(key, written, if_absent=True))
            except DimintError as error:
                op = op._replace(status=_status(error))
            op = op._replace(ended=time.monotonic())
            self._expect_in_time(started, [op])
            self.record(op)
            await asyncio.sleep(3 * self._pause_s)

    # --- raw sockets -------------------------------------------------------------------------------------------------
    def _numbered(self, name: str, rng: random.Random) -> None:
        """client and seq: unanswered requests are sent again, others now and then too; each counts once."""
        answered: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        with _Socket(self._addresses, rng) as socket:
            for seq in itertools.count(1):
                if self.over.is_set():
                    return
                what, key, written = _choose(rng, f"{name}-{seq}", reads=False)
                request = {**_request(what, key, written, rng), "client": name, "seq": seq}
                started = time.monotonic()
                reply = self._insist(socket, request, rng)
                kind = "absent" if "if_absent" in request else what
                op = Op(name, kind, key, started, time.monotonic(), "ok", written, client=name, seq=seq)
                self.record(_answered(op, reply))
                answered[seq] = request, reply
                again = rng.randint(max(1, seq - 250), seq)
                if rng.random() < 0.1 and "error" not in answered[again][1]:
                    first, told = answered[again]
                    now = self._insist(socket, first, rng)
                    if any(now.get(field) != told.get(field) for field in ("value", "applied", "version")):
                        self.problems.append(f"{first} was {told}, again {now}")
                time.sleep(self._pause_s)

    def _insist(self, socket: "_Socket", request: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        """Send until there is an answer that settles it."""
        deadline = time.monotonic() + self._patience_s
        number = 0
        reply: dict[str, Any] = {"error": "DIMINT_OUTCOME_UNKNOWN"}
        while time.monotonic() < deadline:
            number += 1
            mark = f"{request['seq']}.{number}"
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                socket.send({**request, "id": mark})
            found = socket.reply(mark, RESEND_S)
            if found is None:
                socket.reconnect()
            elif not found.get("retriable"):
                return found
            else:
                # also what this copy did not do an earlier one may still do
                reply = found if number == 1 else reply
                time.sleep(0.02)
        self.problems.append(f"no answer to {request} in {self._patience_s} s")
        return {"error": "DIMINT_OUTCOME_UNKNOWN"}

    def _old(self, name: str, rng: random.Random) -> None:
        """No id, no numbers: a request without an answer is given up with its connection."""
        with _Socket(self._addresses, rng) as socket:
            for number in itertools.count():
                if self.over.is_set():
                    return
                what, key, written = _choose(rng, f"{name}-{number}")
                request = _request(what, key, written, rng)
                level = request.get("consistency", "")
                kind = "absent" if "if_absent" in request else what
                op = Op(name, kind, key, time.monotonic(), 0.0, "ok", written, level=level)
                socket.send(request)
                reply = socket.reply(None, 2.0)
                if reply is None:
                    socket.reconnect()
                    reply = {"error": "DIMINT_OUTCOME_UNKNOWN"}
                self.record(_answered(op._replace(ended=time.monotonic()), reply))
                time.sleep(self._pause_s)

    def _many_at_once(self, name: str, rng: random.Random) -> None:
        """Requests with ids, eight at once, mset and mget too; every one is answered unless its connection breaks."""
        with _Socket(self._addresses, rng) as socket:
            for number in itertools.count():
                if self.over.is_set():
                    return
                requests: dict[str, tuple[dict[str, Any], Op]] = {}
                for part in range(8):
                    what, key, written = _choose(rng, f"{name}-{number}.{part}")
                    request = _request(what, key, written, rng)
                    if what == "set" and "if_absent" not in request and rng.random() < 0.5:
                        keys = rng.sample(REGISTERS, 4)
                        request = {"cmd": "mset", "values": {key: f"{written}.{key}" for key in keys}}
                    mark = f"{number}.{part}"
                    kind = "absent" if "if_absent" in request else what
                    level = request.get("consistency", "")
                    requests[mark] = request, Op(name, kind, key, time.monotonic(), 0.0, "ok", written, level=level)
                    socket.send({**request, "id": mark, "timeout": 1.5})
                broken = False
                for mark, (request, op) in requests.items():
                    reply = None if broken else socket.reply(mark, 6.0)
                    broken = broken or reply is None
                    answer = reply or {"error": "DIMINT_OUTCOME_UNKNOWN"}
                    ended = socket.times.get(mark, time.monotonic())
                    if request["cmd"] != "mset":
                        self.record(_answered(op._replace(ended=ended), answer))
                        continue
                    for key, value in request["values"].items():
                        mine = {"error": failed} if (failed := answer.get("failed", {}).get(key)) else answer
                        part_op = op._replace(key=key, written=value, ended=ended)
                        self.record(_answered(part_op, {"ok": True} if answer.get("failed") and not failed else mine))
                if broken:
                    socket.reconnect()
                socket.times.clear()
                time.sleep(8 * self._pause_s)


class _Socket:
    """A DEALER that is thrown away when it does not answer; the next one goes to the next overlord."""

    def __init__(self, addresses: list[str], rng: random.Random) -> None:
        start = rng.randrange(len(addresses))
        self._addresses = itertools.cycle([*addresses[start:], *addresses[:start]])
        self._context: zmq.Context[Any] = zmq.Context()
        self._replies: dict[Any, dict[str, Any]] = {}
        self.times: dict[Any, float] = {}
        self._open()

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://{next(self._addresses)}")

    def reconnect(self) -> None:
        self._socket.close()
        self._replies.clear()
        self._open()

    def send(self, request: dict[str, Any]) -> None:
        self._socket.send(json.dumps(request).encode())

    def reply(self, mark: str | None, seconds: float) -> dict[str, Any] | None:
        """The reply to `id` `mark` within the time; other replies are kept (`times` has when they came)."""
        deadline = time.monotonic() + seconds
        while mark not in self._replies:
            left = deadline - time.monotonic()
            if left <= 0 or not self._socket.poll(int(left * 1000) + 1):
                return None
            found = json.loads(self._socket.recv())
            self._replies[found.get("id")] = found
            self.times.setdefault(found.get("id"), time.monotonic())
        return self._replies.pop(mark)

    def __enter__(self) -> "_Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()


def _choose(rng: random.Random, unique: str, *, reads: bool = True) -> tuple[str, str, Any]:
    """What to do next: kind, key, and what to write or add."""
    what = rng.choice(["set", "set", "incr", "delete", "absent", *(["get"] * 4 if reads else [])])
    if what == "incr":
        return what, rng.choice(COUNTERS), rng.randint(1, 9)
    if what == "get":
        return what, rng.choice([*COUNTERS, *REGISTERS]), None
    return what, rng.choice(REGISTERS), None if what == "delete" else unique


def _request(what: str, key: str, written: Any, rng: random.Random) -> dict[str, Any]:
    if what == "get":
        return {"cmd": "get", "key": key, "consistency": rng.choice(["weak", "strong"])}
    if what == "incr":
        return {"cmd": "incr", "key": key, "by": written}
    if what == "delete":
        return {"cmd": "delete", "key": key}
    return {"cmd": "set", "key": key, "value": written, **({"if_absent": True} if what == "absent" else {})}


def _answered(op: Op, reply: dict[str, Any]) -> Op:
    """The operation with what its reply says."""
    error = reply.get("error")
    if error is not None:
        return op._replace(status="unknown" if error in UNKNOWN else "refused")
    op = op._replace(version=reply.get("version"))
    if op.kind == "get":
        position = reply.get("position")
        at = None if position is None else parse_token(position)[2]
        return op._replace(seen=reply.get("value", ABSENT), state_at=at)
    if op.kind == "incr":
        return op._replace(seen=reply["value"])
    return op._replace(seen=reply.get("applied"))


def _status(error: DimintError) -> str:
    return "refused" if isinstance(error, RequestError) and not isinstance(error, OutcomeUnknown) else "unknown"


def _library_mset(client: Client, op: Op, values: Mapping[str, str]) -> list[Op]:
    """One mset is a write of each key: some may have failed while others are there."""
    failed: dict[str, str] = {}
    try:
        client.mset(values)
    except Partial as error:
        failed = {key: "unknown" if code == OutcomeUnknown.code else "refused" for key, code in error.failed.items()}
    except DimintError as error:
        failed = dict.fromkeys(values, _status(error))
    ended = time.monotonic()
    return [op._replace(key=key, written=value, ended=ended, status=failed.get(key, "ok")) for key, value in values.items()]


def _library_step(client: Client, name: str, number: int, rng: random.Random) -> list[Op]:
    """One call of the library, or a read and the cas that follows it."""
    what, key, written = _choose(rng, f"{name}-{number}")
    op = Op(name, what, key, time.monotonic(), 0.0, "ok", written, client=client.client_id)
    ops: list[Op] = []
    try:
        if what == "get":
            level = rng.choice(["session", "session", "strong", "weak"])
            value, version = client.get_versioned(key, consistency=level)
            op = op._replace(seen=value if version else ABSENT, version=version, level=level)
            if level == "session" and key in REGISTERS:
                ops.append(op._replace(ended=time.monotonic()))
                expected = ops[0].seen
                op = Op(
                    name, "cas", key, time.monotonic(), 0.0, "ok", f"{name}-{number}", client=client.client_id, expected=expected
                )
                done = client.cas(key, op.written, version=version)
                op = op._replace(seen=done.applied, version=done.version)
        elif what == "incr":
            op = op._replace(seen=client.incr(key, written))
        elif what == "delete":
            client.delete(key)
        elif what == "set" and number % 3 == 0:
            return _library_mset(client, op, {each: f"{written}.{each}" for each in rng.sample(REGISTERS, 3)})
        elif what == "set":
            client.set(key, written)
        else:
            op = op._replace(kind="absent", seen=client.set(key, written, if_absent=True))
    except DimintError as error:
        op = op._replace(status=_status(error))
    return [*ops, op._replace(ended=time.monotonic())]
