"""The client's core: what to send, when to send it elsewhere, and how each call ends. [S]

A driver (sync.py, aio.py) submits operations, hands in every frame that arrives, calls `tick` when `next_wake` says so,
and performs `take_effects()` after each of these. Every call ends by its deadline, with a value or a named error.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from dimint.client.calls import Call
from dimint.client.network import Effect, Network
from dimint.client.operations import CONSISTENCIES, Kind, Operation
from dimint.client.reads import Reads
from dimint.client.tokens import Tokens
from dimint.client.writes import WRITE_PATIENCE_S, Unresolved, Writes
from dimint.errors import Busy, ClientClosed, ParseError
from dimint.limits import CLIENT_CALLS_MAX, CLIENT_ID_MAX_BYTES

__all__ = ["Session"]

TICK_S: Final = 0.05
READ_PATIENCE_S: Final = 1.0


class Session:
    """One client's state. `now` is always the driver's monotonic time in seconds."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        client: str,
        choose: Callable[[Sequence[str]], str],
        consistency: str = "session",
        direct_reads: bool = True,
        tokens: Iterable[str] = (),
    ) -> None:
        if consistency not in CONSISTENCIES:
            raise ParseError(f"`consistency` is one of {', '.join(CONSISTENCIES)}")
        if not 0 < len(client.encode()) <= CLIENT_ID_MAX_BYTES:
            raise ParseError(f"`client` takes 1 to {CLIENT_ID_MAX_BYTES} bytes")
        self.tokens = Tokens(tokens)
        self._consistency = consistency
        self._network = Network(addresses, choose)
        self._reads = Reads(self._network, self.tokens, self._finish, direct=direct_reads)
        self._writes = Writes(self._network, client, self._finish)
        self._calls: dict[int, Call] = {}
        self._last_number = 0
        self._next_tick = 0.0
        self._last_seen = 0.0
        self._closed = False

    @property
    def client(self) -> str:
        return self._writes.client

    @property
    def home(self) -> str | None:
        """Address of the overlord in use."""
        return self._network.home

    @property
    def overlords(self) -> Sequence[str]:
        """Addresses of the overlords that are known by now."""
        topology = self._network.topology
        return () if topology is None else topology.overlords

    def unresolved(self) -> list[Unresolved]:
        """Writes that ended unknown and that `result` was not asked about since; the last 1000."""
        return list(self._writes.unresolved.values())

    def submit(self, op: Operation[Any], now: float, timeout_s: float, on_done: Callable[[Call], None] | None = None) -> Call:
        """Begin a call. It may be done already when this returns. Raises ClientClosed or Busy."""
        if self._closed:
            raise ClientClosed("the client is closed")
        if len(self._calls) >= CLIENT_CALLS_MAX:
            raise Busy(f"{CLIENT_CALLS_MAX} calls are under way")
        if not self._calls and now - self._last_seen > TICK_S:
            self._network.rebase(now)
        self._last_seen = now
        self._last_number += 1
        is_write = op.kind is Kind.WRITE
        call = Call(
            self._last_number,
            op,
            now + timeout_s,
            WRITE_PATIENCE_S if is_write else READ_PATIENCE_S,
            op.consistency or self._consistency,
            on_done,
        )
        self._calls[call.number] = call
        self._next_tick = min(self._next_tick, call.deadline) if len(self._calls) > 1 else min(now + TICK_S, call.deadline)
        self._network.touch(now)
        if is_write:
            self._writes.start(call, now)
        else:
            self._reads.start(call, now)
        return call

    def received(self, address: str, frame: bytes, now: float) -> None:
        """Take in one frame from an address."""
        self._last_seen = now
        home = self._network.home
        answered = self._network.received(address, frame, now)
        if answered is not None:
            part, reply = answered
            self.tokens.observe_reply(reply)
            flow = self._writes if part.call.op.kind is Kind.WRITE else self._reads
            flow.answer(part, reply, now)
        elif self._network.home != home:
            self._flush(now)

    def tick(self, now: float) -> None:
        """Let time pass. Cheap before `next_wake`."""
        if now < self._next_tick:
            return
        self._last_seen = now
        for call in list(self._calls.values()):
            if not call.done and now >= call.deadline:
                self._finish(call, self._expired(call))
        if not self._calls:
            return
        for part in self._network.tick(now):
            flow = self._writes if part.call.op.kind is Kind.WRITE else self._reads
            flow.lost(part, now)
        for call in list(self._calls.values()):
            if not call.done:
                (self._writes if call.op.kind is Kind.WRITE else self._reads).check(call, now)
        self._flush(now)
        self._next_tick = min(now + TICK_S, *(call.deadline for call in self._calls.values())) if self._calls else now

    def next_wake(self) -> float | None:
        """When `tick` has something to do; None while no call is under way."""
        return self._next_tick if self._calls else None

    def take_effects(self) -> list[Effect]:
        """What is to be performed now, in this order."""
        effects = self._network.effects
        if effects:
            self._network.effects = []
        return effects

    def abandon(self, call: Call, error: Exception) -> None:
        """The caller waits no more (cancelled, interrupted). A write that was sent becomes an unresolved one."""
        if not call.done:
            self._expired(call)
            self._finish(call, error)

    def close(self) -> None:
        """End every call with ClientClosed. Idempotent."""
        self._closed = True
        for call in list(self._calls.values()):
            self.abandon(call, ClientClosed("the client was closed while the call waited"))
        self._network.close()

    def _flush(self, now: float) -> None:
        self._writes.flush(now)
        self._reads.flush(now)

    def _expired(self, call: Call) -> Exception:
        return (self._writes if call.op.kind is Kind.WRITE else self._reads).expired(call)

    def _finish(self, call: Call, error: Exception | None) -> None:
        call.done = True
        del self._calls[call.number]
        if call.op.kind is Kind.WRITE:
            self._writes.end(call)
        else:
            self._reads.end(call)
        if error is None:
            try:
                call.value = call.op.finish(call.reply)
            except Exception as problem:  # noqa: BLE001 - whatever the reply lacks is the caller's error, not the reader's
                error = problem
        call.error = error
        if call.op.cmd == "result" and error is None and call.op.fields["client"] == self.client:
            self._writes.unresolved.pop(call.op.fields["seq"], None)
        if call.on_done is not None:
            call.on_done(call)
