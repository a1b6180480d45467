"""Are the replicas of a partition equal? Every key of each is read through the nodes' own doors, while all goes on.

Replicas are not at the same position at any moment. What they have at one time or another is compared page by page; a key
that differs is asked for again, of each replica at or past the positions of all, until they agree or differ at one position.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from dimint.curve import Key
from dimint.errors import NodeNotAvailable, NotMsgpack, RequestError, TimedOut, error_for_code
from dimint.events import KV_TOPIC
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.positions import format_position
from dimint.transport import Context
from dimint.wire import format_token, parse_token

__all__ = ["NodeDoors", "ReplicasCompared", "compare_replicas"]

Ask: TypeAlias = Callable[[str, dict[str, Any]], dict[str, Any]]
"""(node, request) → reply in msgpack. Raises RequestError."""
_PAGE: Final = 500
_TRIES: Final = 20
_VALUE_CHARS: Final = 120


class ReplicasCompared(NamedTuple):
    """One partition. `problem` is the first difference, by key and positions, or why there is none to be found; `unsettled`
    counts keys that changed faster than they could be asked for."""

    partition: int
    nodes: Sequence[str]
    keys: int
    unsettled: int
    problem: str | None


def compare_replicas(
    generation: str, partitions: Sequence[Mapping[str, Any]], ask: Ask, *, progress: Progress = NO_PROGRESS
) -> Iterator[ReplicasCompared]:
    """Compare the partitions of an overlord's `status`; those with one replica have nothing to be compared with."""
    total = sum(max((copy.get("keys") or 0 for copy in part["replicas"].values()), default=0) for part in partitions)
    done = 0
    for part in partitions:
        nodes = [node for node in (part["master"], *part["slaves"]) if node]
        comparing = _Comparing(generation, int(part["partition"]), nodes, ask)
        problem: str | None = None
        try:
            for problem in comparing.differences(int(part["end"]) if part["end"] else 0):
                progress.at(done + comparing.keys, total, done + comparing.keys)
                if problem is not None:
                    break
        except RequestError as error:
            problem = str(error)
        done += comparing.keys
        yield ReplicasCompared(int(part["partition"]), nodes, comparing.keys, comparing.unsettled, problem)
    progress.end(done, total, done)


class _Comparing:
    def __init__(self, generation: str, partition: int, nodes: Sequence[str], ask: Ask) -> None:
        self.keys = self.unsettled = 0
        self._generation, self._partition, self._nodes, self._ask = generation, partition, nodes, ask

    def differences(self, end: int) -> Iterator[str | None]:
        """For each page a difference, or None."""
        tokens = [format_token(self._generation, self._partition, end)]
        after: str | None = None
        while True:
            pages = {node: self._page(node, after, tokens) for node in self._nodes}
            upto = min((page.last for page in pages.values() if page.last is not None), default=None)
            known = [{key: value for key, value in page.items if upto is None or key <= upto} for page in pages.values()]
            keys = sorted(set().union(*known), key=str.encode)
            self.keys += len(keys)
            doubtful = (key for key in keys if any(one.get(key) != known[0].get(key) for one in known))
            yield next((problem for key in doubtful if (problem := self._judge(key, tokens)) is not None), None)
            if upto is None:
                return
            after = upto

    def _page(self, node: str, after: str | None, tokens: Sequence[str], limit: int = _PAGE) -> "_Page":
        request = {"cmd": "scan", "limit": limit, "after": after, "partitions": [self._partition], "min_position": tokens}
        try:
            reply = self._of(node, request)
        except NotMsgpack:
            if limit > 1:
                return self._page(node, after, tokens, limit // 8 or 1)
            reply = self._of(node, {**request, "form": "json"})
        items = [(key, _packed(value)) for key, value in reply["items"]]
        return _Page(items, None if reply.get("next") is None else items[-1][0])

    def _judge(self, key: str, tokens: Sequence[str]) -> str | None:
        """What differs of a key; None if it comes to be the same, or does not stand still."""
        for _ in range(_TRIES):
            found = {node: self._state(node, key, tokens) for node in self._nodes}
            if len({(state.version, state.value) for state in found.values()}) == 1:
                return None
            positions = {state.position for state in found.values()}
            if len(positions) == 1:
                shown = ", ".join(f"{node[:8]} has {state.shown}" for node, state in found.items())
                where = format_position(KV_TOPIC, self._partition, parse_token(*positions).offset)
                return f"key {key!a}, all up to {where}: {shown}"
            tokens = sorted(positions)
        self.unsettled += 1
        return None

    def _state(self, node: str, key: str, tokens: Sequence[str]) -> "_State":
        request = {"cmd": "get", "key": key, "min_position": list(tokens)}
        try:
            reply = self._of(node, request)
        except NotMsgpack:
            reply = self._of(node, {**request, "form": "json"})
        version, value = int(reply.get("version") or 0), reply.get("value")
        shown = f"{ascii(value)[:_VALUE_CHARS]} (version {version})" if version else "no such key"
        return _State(version, _packed(value), str(reply["position"]), shown)

    def _of(self, node: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._ask(node, request)
        except NodeNotAvailable as error:
            raise NodeNotAvailable(f"node {node[:8]} does not answer for it: {error.message}") from error


class _State(NamedTuple):
    """A key at one replica: version (0: it is not there), value as bytes, token of the replica's position, in words."""

    version: int
    value: bytes
    position: str
    shown: str


class _Page(NamedTuple):
    """Keys with their values as bytes; `last` None if there are no more."""

    items: list[tuple[str, bytes]]
    last: str | None


def _packed(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except OverflowError:  # an integer of more than 64 bits
        packed = json.dumps(value).encode()
    return packed


class NodeDoors:
    """The nodes' doors for clients: node → address. Belongs to one thread."""

    def __init__(self, addresses: Mapping[str, str], *, timeout_s: float, key: Key | None = None) -> None:
        self._timeout_s = timeout_s
        self._context = Context(key)
        self._dealers = {node: self._context.dealer(address) for node, address in addresses.items()}
        self._numbers = itertools.count(1)

    def ask(self, node: str, request: dict[str, Any]) -> dict[str, Any]:
        """A reply; `form` json in the request says that it is not to be msgpack. Raises RequestError."""
        dealer = self._dealers.get(node)
        if dealer is None:
            raise NodeNotAvailable("it is not there")
        number, is_json = next(self._numbers), request.pop("form", None) == "json"
        fields = {**request, "id": number, "timeout": self._timeout_s, "consistency": "session"}
        dealer.send(json.dumps(fields).encode() if is_json else msgpack.packb(fields))
        deadline = time.monotonic() + self._timeout_s + 1.0
        while dealer.wait(max(0.0, deadline - time.monotonic())):
            for frame in dealer.receive():
                reply: dict[str, Any] = json.loads(frame) if is_json else msgpack.unpackb(frame, strict_map_key=False)
                if reply.get("id") != number:
                    continue
                if "error" in reply:
                    raise error_for_code(str(reply["error"]), str(reply.get("message") or ""))
                return reply
        raise TimedOut(f"node {node[:8]} did not answer within {self._timeout_s:g} s")

    def close(self) -> None:
        """Idempotent."""
        for dealer in self._dealers.values():
            dealer.close()
        self._context.close()
