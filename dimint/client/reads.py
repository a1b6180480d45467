"""How reads and questions find their answer. [S]

Weak and session reads of keys go straight to a random replica; everything else, and every read that a node refused or
did not answer in time, goes to the home overlord, or to another one while the home cannot serve reads. Reads can be
repeated at will, so they are, until the deadline.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from dimint.client.calls import Call, Todo, backoff_s
from dimint.client.content import Form
from dimint.client.network import Network, Part
from dimint.client.operations import Kind
from dimint.client.tokens import Tokens
from dimint.errors import NodeNotAvailable, NotJson, NotMsgpack, RequestError, TimedOut, UnknownCommand, error_for_code
from dimint.limits import READ_WAIT_MAX_MS
from dimint.so_far import so_far_of

__all__ = ["Reads", "server_timeout_s"]

NODE_PATIENCE_S: Final = 0.3
"""After so long without an answer of a node an overlord is asked."""
NODE_WAIT_S: Final = 0.2
"""How long a node may wait for the position of a session read."""


def server_timeout_s(deadline: float, now: float) -> float:
    """What the server gets of the time that is left: it should answer before the caller gives up."""
    return min(max(0.9 * (deadline - now), 0.001), READ_WAIT_MAX_MS / 1000)


class Reads:
    """All reads of one client. `finish(call, error)` ends a call."""

    def __init__(
        self, network: Network, tokens: Tokens, finish: Callable[[Call, Exception | None], None], *, direct: bool
    ) -> None:
        self._network = network
        self._tokens = tokens
        self._finish = finish
        self._direct = direct
        self._waiting: dict[int, Call] = {}

    def start(self, call: Call, now: float) -> None:
        op = call.op
        is_key_read = op.kind is Kind.READ and bool(op.keys) and call.consistency != "strong"
        call.todo.append(Todo(now, op.keys, op.form, self._direct and is_key_read))
        self._go(call, now)

    def flush(self, now: float) -> None:
        """Send what waited for its time or for an overlord."""
        for call in list(self._waiting.values()):
            self._go(call, now)

    def check(self, call: Call, now: float) -> None:
        """Repeat what has been under way for too long."""
        if not call.parts or now - call.sent_at < min(NODE_PATIENCE_S, call.patience_s):
            return
        overdue = [part for part in call.parts.values() if now - part.sent_at >= self._patience(part, call)]
        for part in overdue:
            if part.is_direct:
                self._network.avoid(part.address, now)
            else:
                call.patience_s *= 2
                self._unable(call, part, now)
            self._drop(call, part)
            call.todo.append(Todo(now, part.keys, part.form))
        if overdue:
            self._go(call, now)

    def lost(self, part: Part, now: float) -> None:
        """Its connection died."""
        call: Call = part.call
        if call.parts.pop(part.id, None) is not None:
            call.todo.append(Todo(now, part.keys, part.form))
            self._waiting[call.number] = call

    def answer(self, part: Part, reply: dict[str, Any], now: float) -> None:
        """Take in a reply; ends the call if it was the last one."""
        call: Call = part.call
        call.parts.pop(part.id, None)
        if "error" not in reply and not part.is_direct:
            self._network.served(part.address)
        if "error" in reply:
            error = error_for_code(str(reply["error"]), str(reply.get("message") or ""))
            if isinstance(error, TimedOut):
                error.so_far = so_far_of(reply.get("so_far"))
            self._refused(call, part, error, now)
        elif call.op.cmd == "mget":
            call.reply.setdefault("values", {}).update(reply.get("values") or {})
        else:
            call.reply = reply
        if not call.done and not call.parts and not call.todo:
            self._finish(call, None)

    def expired(self, call: Call) -> Exception:
        """What a call that ran out of time ends with."""
        if call.problem is not None:
            return call.problem
        if self._network.home is None:
            return self._network.nobody(TimedOut)
        return TimedOut("no answer in time")

    def end(self, call: Call) -> None:
        """The call is done: forget what it still had under way."""
        self._waiting.pop(call.number, None)
        for part in call.parts.values():
            self._network.forget(part)

    def _refused(self, call: Call, part: Part, error: RequestError, now: float) -> None:
        todo = Todo(now, part.keys, part.form)
        if isinstance(error, NotJson) and part.form is Form.JSON:
            call.todo.append(todo._replace(form=Form.MSGPACK, may_be_direct=part.is_direct))
        elif isinstance(error, NotMsgpack) and len(part.keys) > 1:  # a binary value and a long integer in one reply
            call.todo += [Todo(now, (key,), Form.JSON, part.is_direct) for key in part.keys]
        elif part.is_direct and (error.retriable or isinstance(error, UnknownCommand)):
            if isinstance(error, NodeNotAvailable):
                self._network.want_topology(now)
            call.todo.append(todo)
        elif error.retriable:
            call.problem = error
            call.tries += 1
            if isinstance(error, NodeNotAvailable | TimedOut):
                self._unable(call, part, now)
            call.todo.append(todo._replace(not_before=now + backoff_s(call.tries)))
        else:
            self._finish(call, error)
            return
        self._go(call, now)

    def _go(self, call: Call, now: float) -> None:
        todo, call.todo = call.todo, []
        for item in todo:
            if item.not_before > now:
                call.todo.append(item)
                continue
            for address, keys in self._places(item, now):
                if address is not None:
                    self._send(call, address, keys, item.form, now, is_direct=True)
                elif (overlord := self._network.overlord_for_reads(now)) is not None:
                    self._send(call, overlord, keys, item.form, now, is_direct=False)
                else:
                    self._network.want_home(now)
                    call.todo.append(Todo(now, keys, item.form, item.may_be_direct))
                if call.done:
                    return
        if call.todo:
            self._waiting[call.number] = call
        else:
            self._waiting.pop(call.number, None)

    def _places(self, item: Todo, now: float) -> Iterable[tuple[str | None, tuple[str, ...]]]:
        """Which keys to read where; None is the home overlord."""
        topology = self._network.topology
        if not item.may_be_direct or topology is None:
            return [(None, item.keys)]
        if len(item.keys) == 1:
            return [(self._network.replica(item.keys[0], now), item.keys)]
        of_partition: dict[int, str | None] = {}
        groups: dict[str | None, list[str]] = {}
        for key in item.keys:
            partition = topology.partition_of(key)
            if partition not in of_partition:
                of_partition[partition] = self._network.replica(key, now)
            groups.setdefault(of_partition[partition], []).append(key)
        return [(address, tuple(keys)) for address, keys in groups.items()]

    def _unable(self, call: Call, part: Part, now: float) -> None:
        """An overlord did not serve a read: others may."""
        if call.op.kind is Kind.READ:
            self._network.avoid(part.address, now)

    def _send(self, call: Call, address: str, keys: tuple[str, ...], form: Form, now: float, *, is_direct: bool) -> None:
        request = call.op.request(keys)
        if call.op.kind is Kind.READ:
            if len(keys) == 1 and call.op.cmd == "mget":
                request["keys"] = list(keys)
            request["consistency"] = call.consistency
            if call.consistency == "session":
                tokens = self._tokens_for(keys)
                if tokens:
                    request["min_position"] = tokens
        elif call.op.wants_tokens and (tokens := self._tokens.all()):
            request["min_position"] = tokens
        timeout = server_timeout_s(call.deadline, now)
        request["timeout"] = min(timeout, NODE_WAIT_S) if is_direct else timeout
        part = Part(self._network.next_id(), address, keys, form, now, call, is_direct=is_direct)
        try:
            self._network.send(part, request, now)
        except RequestError as error:
            self._finish(call, error)
            return
        call.parts[part.id] = part
        call.sent_at = now

    def _tokens_for(self, keys: tuple[str, ...]) -> list[str]:
        topology = self._network.topology
        if not keys or topology is None:
            return self._tokens.all()
        return self._tokens.of(dict.fromkeys(topology.partition_of(key) for key in keys))

    def _patience(self, part: Part, call: Call) -> float:
        return NODE_PATIENCE_S if part.is_direct else call.patience_s

    def _drop(self, call: Call, part: Part) -> None:
        del call.parts[part.id]
        self._network.forget(part)
