"""Whatever bytes come to an overlord's client door, there is exactly one reply, and it is readable and named."""

import json
from typing import Any

import msgpack
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.wire import form_of
from dimint.wire_types import COMMANDS
from tests.support.cluster_sim import Sim

FIELDS = [
    "key", "keys", "value", "values", "expected", "version", "by", "ttl", "id", "client", "seq", "min_position", "timeout",
    "consistency", "prefix", "after", "limit", "events", "if_absent", "if_present", "partitions",
]  # fmt: skip
numbers = st.integers(-(1 << 70), 1 << 70) | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.sampled_from(["weak", "a:1:2"])


def nested(inner: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and maps of what `inner` gives."""
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


json_values = st.recursive(scalars, lambda inner: nested(inner, st.text(max_size=3)))
requests = st.fixed_dictionaries(
    {"cmd": st.sampled_from(sorted(COMMANDS)) | scalars}, optional=dict.fromkeys(FIELDS, json_values)
)
packed_scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.binary(max_size=8)
packable = st.recursive(
    packed_scalars | st.text(max_size=8), lambda inner: nested(inner, st.text(max_size=3) | st.integers(0, 9))
)
packed_requests = st.fixed_dictionaries({"cmd": st.sampled_from(sorted(COMMANDS))}, optional=dict.fromkeys(FIELDS, packable))


def check(frame: bytes) -> None:
    """One frame, one reply."""
    sim = Sim()
    sim.run(0.02)
    replies: list[bytes] = []
    sim.overlords["o1"].core.receive(replies.append, frame, sim.now)
    for _ in range(20):
        if replies:
            break
        sim.run(0.5)
    (reply,) = replies
    fields: Any = msgspec.json.decode(reply) if form_of(frame).name == "json" else msgpack.unpackb(reply, strict_map_key=False)
    assert type(fields) is dict
    if "error" in fields:
        assert fields["error"].startswith("DIMINT_")
        assert fields["error"] != "DIMINT_INTERNAL"
    assert sim.overlords["o1"].core.busy == 0
    assert sim.overlords["o1"].core.table.bytes == 0
    sim.log.close()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes(frame: bytes) -> None:
    """Noise has a named error."""
    check(frame)


@settings(max_examples=50, deadline=None)
@given(requests)
def test_random_json_requests(request: dict[str, Any]) -> None:
    """Maps with fields of any type are requests or named errors."""
    check(json.dumps(request).encode())


@settings(max_examples=50, deadline=None)
@given(packed_requests)
def test_random_msgpack_requests(request: dict[str, Any]) -> None:
    """The same in msgpack, with binary values and odd map keys."""
    check(msgpack.packb(request))


@settings(max_examples=50, deadline=None)
@given(requests, st.data())
def test_damaged_requests(request: dict[str, Any], data: st.DataObject) -> None:
    """Requests with a byte changed or cut off."""
    frame = bytearray(json.dumps(request).encode())
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] = data.draw(st.integers(0, 255))
    check(bytes(frame[: data.draw(st.integers(1, len(frame)))]))
