"""Messages between overlords and nodes (the overlord's node door), and their bytes. [S]

A node opens one DEALER to the node door of every live overlord and says Hello; the overlord says Welcome. After that the
overlord sends Reads, AskOutcomes, Fetch, Unfetch and Disputed, the node sends Answers, Outcomes, Fetched, Progress and Due.
One frame is one message: a msgpack array whose first item is the type's tag. Everything may be lost with the connection;
whoever waits asks again. Consumers that keep the history of keys come to the same door (dimint/door_past.py).

`next_offset` of a partition is the position after the last applied record: a replica with next_offset ≥ n has applied
every record below n.
"""

from typing import TypeAlias

import msgspec

from dimint.door_past import Historian, Told
from dimint.errors import ParseError

__all__ = [
    "Answer",
    "Answers",
    "AskLog",
    "AskOutcomes",
    "Change",
    "DISPUTED",
    "Disputed",
    "Due",
    "Fetch",
    "Fetched",
    "Found",
    "FromNode",
    "FromOverlord",
    "Hello",
    "LogPlace",
    "MOVED",
    "Outcome",
    "Outcomes",
    "Progress",
    "Read",
    "Reads",
    "Replica",
    "Unfetch",
    "Welcome",
    "decode_from_node",
    "decode_from_overlord",
    "decode_log_place",
    "encode",
]

PROTOCOL = 1

MOVED = "moved"
"""Error of an answer for a partition that the node does not serve."""
DISPUTED = "its contents differ from other replicas"
"""How the problem of a disputed replica starts."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What a conditional event did when it was applied; the same on every replica and for ever.

    name      applied      done
              condition    a cas or a conditional set found something else; `version` is what is there, 0 for nothing
              not_integer  incr found something else than an integer
              superseded   a later seq of this client was applied first; this one never will be
              forgotten    older than the outcome window: what became of it is not known any more
              unused       answer to kv.resolve: the request was not applied and never will be
    value     the new integer of an incr, as decimal text
    version   version of the key afterwards, None where nothing is known
    """

    name: str
    value: str | None = None
    version: int | None = None


class Found(msgspec.Struct, frozen=True, array_like=True):
    """A key that is there. `value` is the stored value with its tag byte; `expires_us` is log time, 0 = never."""

    key: str
    value: bytes
    version: int
    expires_us: int = 0


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One change of a key as it counted.

    kind      "set", "cas", "incr", "delete" or "expire"
    value     the new stored value with its tag byte; None of a delete and an expire
    version   the key's version from now on; of a delete and an expire the one that is gone
    offset, index   the record, and the event's place in it
    """

    kind: str
    key: str
    value: bytes | None
    version: int
    offset: int
    index: int
    log_time_us: int


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    """First message of a node. `client_address` is where it serves clients directly."""

    node: str
    generation: str
    client_address: str
    protocol: int = PROTOCOL


class Welcome(msgspec.Struct, frozen=True, tag="welcome", array_like=True):
    """First answer of an overlord: its id and its writer's incarnation. The node sends it outcomes of that writer's batches."""

    overlord: str
    writer: bytes
    refused: str | None = None


class Building(msgspec.Struct, frozen=True, array_like=True):
    """How far a replica is that is not caught up yet.

    how      "peer": a snapshot of another node; "log": the log's records
    source   the node, once one gives; "" else
    percent  0 … 100
    rate     bytes of the snapshot, or records, a second
    """

    how: str
    source: str = ""
    percent: float = 0.0
    rate: float = 0.0


class Replica(msgspec.Struct, frozen=True, array_like=True):
    """State of one partition on a node. `digest` is 32 hex digits at `digest_at`, the last multiple of 4096 passed.

    `dead_letters` counts the records up to here that were none of ours. `anew`: after a dispute it was built again from the
    log, or found to fit its own rows, and has not been found equal to another replica since.
    """

    partition: int
    next_offset: int
    key_count: int
    log_time_us: int
    caught_up: bool
    digest: str = ""
    digest_at: int = -1
    problem: str | None = None
    dead_letters: int = 0
    building: Building | None = None
    anew: bool = False


class Progress(msgspec.Struct, frozen=True, tag="progress", array_like=True):
    """Sent by a node every PROGRESS interval (200 ms) when anything changed, and after each Welcome."""

    node: str
    epoch: int
    replicas: list[Replica]


class Read(msgspec.Struct, frozen=True, array_like=True):
    """One read of one partition.

    kind      "get": the keys; "scan": keys ≥ `after` (exclusive) that start with keys[0], at most `limit`
    min_offset  serve when next_offset ≥ it; wait at most `wait_ms`, then fail with DIMINT_TIMEOUT if `strict`,
                else serve what is there
    """

    id: int
    partition: int
    kind: str
    keys: list[str]
    min_offset: int = 0
    wait_ms: int = 0
    strict: bool = False
    after: str | None = None
    limit: int = 0


class Reads(msgspec.Struct, frozen=True, tag="reads", array_like=True):
    reads: list[Read]


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Answer to a Read: `error` is a wire code, or "moved" when the node does not serve the partition.

    `found` has the keys that are there, in order; a get leaves missing ones out. `age_ms` is how long ago the replica had all
    that the log had, −1 if that is not known.
    """

    id: int
    next_offset: int
    found: list[Found]
    error: str | None = None
    age_ms: int = -1


class Answers(msgspec.Struct, frozen=True, tag="answers", array_like=True):
    answers: list[Answer]


class AskOutcomes(msgspec.Struct, frozen=True, tag="ask_outcomes", array_like=True):
    """Ask for the outcomes of one batch; answered with Outcomes as soon as the node has applied it (or knows it)."""

    partition: int
    writer: bytes
    number: int


class Outcomes(msgspec.Struct, frozen=True, tag="outcomes", array_like=True):
    """Outcomes of one applied batch, by index of the event; an index that is left out was plainly applied.

    The master sends it unasked to the writer's overlord for every batch with at least one outcome in it.
    `offset` is the record's offset; `known` is False if the batch is older than what is kept.
    """

    partition: int
    writer: bytes
    number: int
    offset: int
    outcomes: dict[int, Outcome]
    known: bool = True


class Fetch(msgspec.Struct, frozen=True, tag="fetch", array_like=True):
    """Ask for changes of one key, or of all keys with a prefix (`key` None). Answered with Fetched.

    positions   [partition, offset, events of the record there]: the answer comes as soon as there is anything after it
    starts      [partition, min_offset]: only tell where the partition stands, once it is at or past the offset
    wait_ms     after so long the answer comes without changes, with positions that may have moved on
    """

    id: int
    key: str | None
    prefix: str
    positions: list[tuple[int, int, int]]
    starts: list[tuple[int, int]]
    wait_ms: int


class Unfetch(msgspec.Struct, frozen=True, tag="unfetch", array_like=True):
    """Nobody waits for these answers any more."""

    ids: list[int]


class Fetched(msgspec.Struct, frozen=True, tag="fetched", array_like=True):
    """Answer to a Fetch: [partition, its changes in order], and up to which position they reach in each partition.

    `error` is a wire code, or "moved"; with DIMINT_POSITION_GONE `oldest` is [partition, first offset that is left].
    """

    id: int
    positions: list[tuple[int, int, int]]
    changes: list[tuple[int, list[Change]]]
    error: str | None = None
    oldest: tuple[int, int] | None = None


class Due(msgspec.Struct, frozen=True, tag="due", array_like=True):
    """Keys of a partition whose time is over, as [key, version]: sent by the master every second while there are any.

    The elected overlord appends a kv.expire for each; one that comes twice does nothing the second time.
    """

    partition: int
    keys: list[tuple[str, int]]


class Disputed(msgspec.Struct, frozen=True, tag="disputed", array_like=True):
    """The node's replica has other contents than the rest: `text` says where. It serves no reads until None takes it back.

    `agreed`, beside None: it is equal to another replica.
    """

    partition: int
    text: str | None
    agreed: bool = False


class AskLog(msgspec.Struct, frozen=True, tag="ask_log", array_like=True):
    """From a program that knows only the door: where is the log? Answered with LogPlace."""


class LogPlace(msgspec.Struct, frozen=True, tag="log_place", array_like=True):
    """Where the overlord's log is, as its `--log` has it, and the log's generation."""

    log: str
    generation: str


FromNode: TypeAlias = Hello | Progress | Answers | Outcomes | Due | Fetched | AskLog | Historian | Told
FromOverlord: TypeAlias = Welcome | Reads | AskOutcomes | Fetch | Unfetch | Disputed

encode = msgspec.msgpack.Encoder().encode
_from_node = msgspec.msgpack.Decoder(FromNode)
_from_overlord = msgspec.msgpack.Decoder(FromOverlord)
_log_place = msgspec.msgpack.Decoder(LogPlace)


def decode_from_node(frame: bytes) -> FromNode:
    """Raises ParseError for anything that no node sends."""
    try:
        message: FromNode = _from_node.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not a message of a node: {error}") from error
    return message


def decode_from_overlord(frame: bytes) -> FromOverlord:
    """Raises ParseError for anything that no overlord sends."""
    try:
        message: FromOverlord = _from_overlord.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not a message of an overlord: {error}") from error
    return message


def decode_log_place(frame: bytes) -> LogPlace:
    """The answer to AskLog. Raises ParseError for anything else."""
    try:
        return _log_place.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not the answer to the question for the log: {error}") from error
