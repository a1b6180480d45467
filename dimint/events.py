"""The kinds of events: their fields, topics and versions. [S]

An event is `[kind, key, dt_ns, by, field, …]` (dimint/batch.py). KINDS is the one table of all kinds; docs/events.md is
tested against it. A kind whose fields change gets a new name with a version (`kv.set/2`); old ones are read for ever.

In CLUSTER_TOPIC and KV_TOPIC every kind is critical: a reader that does not know one halts its partition, because
skipping it could make replicas differ. In STATUS_TOPIC an unknown kind is counted and passed over.
"""

from typing import Any, Final, NamedTuple

from dimint.batch import FIELDS, KEY, KIND, Event

__all__ = [
    "CLUSTER_TOPIC",
    "KINDS",
    "KV_TOPIC",
    "MODE_ABSENT",
    "MODE_ANY",
    "MODE_PRESENT",
    "STATUS_TOPIC",
    "TOPICS",
    "Field",
    "Kind",
    "describe",
    "is_critical",
    "problem_of",
]

KV_TOPIC: Final = "dimint.kv"
STATUS_TOPIC: Final = "dimint.status"
CLUSTER_TOPIC: Final = "dimint.cluster"
TOPICS: Final = (CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC)
"""The topics that make up a log."""

MODE_ANY, MODE_ABSENT, MODE_PRESENT = 0, 1, 2
"""`kv.set` applies always, only if the key is absent, only if it is present."""


class Field(NamedTuple):
    name: str
    types: tuple[type, ...]
    text: str


class Kind(NamedTuple):
    """One kind of event. `key` says what its key is."""

    name: str
    topic: str
    key: str
    text: str
    fields: tuple[Field, ...]


_NONE = type(None)
_SEQ = Field("seq", (int, _NONE), "the client's request number; nil where it gave none")
_TTL = Field("ttl_ms", (int, _NONE), "time to live from the batch's log time; nil for ever")
_VALUE = Field("value", (bytes,), "stored value: a tag byte, then JSON text (J) or msgpack (M)")
_PSUTIL = Field(
    "state", (dict,), "cwd, name, cmdline, create_time, cpu_percent, memory_percent, memory_info, is_running; more may follow"
)

_RULE = Field("rule", (str,), "name of the rule")
_SUBJECT = Field("subject", (str,), "the GPU's UUID; empty for the host itself")

_TABLE = (
    Kind("kv.set", KV_TOPIC, "the key", "Store a value. Consecutive kv.set events of one batch with one by and one seq are one mset.", (
        _SEQ, _VALUE, _TTL, Field("mode", (int,), "0 always, 1 only if the key is absent, 2 only if it is present"))),
    Kind("kv.delete", KV_TOPIC, "the key", "Remove a key; nothing happens if there is none.", (_SEQ,)),
    Kind("kv.incr", KV_TOPIC, "the key", "Add to an integer; an absent key counts as 0. The expiry stays.", (
        _SEQ, Field("amount", (int,), "what to add, −2⁶³ … 2⁶³−1"))),
    Kind("kv.cas", KV_TOPIC, "the key", "Store a value if the key still is what the client saw.", (
        _SEQ,
        Field("expected", (bytes, _NONE), "stored value that the key must have; nil to compare the version instead"),
        Field("version", (int, _NONE), "version that the key must have, 0 for absent; nil to compare the value"),
        _VALUE, _TTL)),
    Kind("kv.expire", KV_TOPIC, "the key", "Remove a key whose time is over, if its version is still this one.", (
        Field("version", (int,), "version that was due"),)),
    Kind("kv.resolve", KV_TOPIC, "a key of the partition", "Settle what became of a request: takes its seq if it is free.", (_SEQ,)),
    Kind("barrier", KV_TOPIC, "nil", "Does nothing; its position proves that a strong read is up to date.", ()),
    Kind("cluster.genesis", CLUSTER_TOPIC, "nil", "What never changes for this log; the first one counts.", (
        Field("settings", (dict,), "hash (md5), hash_range, partitions (topic → count)"),)),
    Kind("cluster.assigned", CLUSTER_TOPIC, "nil", "The elected overlord placed partitions; the history of the registry's value.", (
        Field("epoch", (int,), "number of the assignment"),
        Field("assignment", (dict,), "groups: [[master, [slave, …]], …]; partitions: [[group, moving_to | nil], …]"))),
    Kind("cluster.trimmed", CLUSTER_TOPIC, "nil", "The beginning of a topic is let go of, from now on.", (
        Field("topic", (str,), "the topic"),
        Field("before", (list,), "[[partition, first offset that stays], …]"),
        Field("archive", (str, _NONE), "name of the archive that holds it; nil for none"))),
    Kind("overlord.joined", CLUSTER_TOPIC, "overlord id", "An overlord was seen for the first time.", (Field("info", (dict,), "addresses, pid"),)),
    Kind("overlord.left", CLUSTER_TOPIC, "overlord id", "An overlord is gone.", ()),
    Kind("node.joined", CLUSTER_TOPIC, "node id", "A node was seen for the first time.", (Field("info", (dict,), "addresses, pid"),)),
    Kind("node.left", CLUSTER_TOPIC, "node id", "A node is gone.", ()),
    Kind("overlord.heartbeat", STATUS_TOPIC, "overlord id (ip:port)", "The overlord is alive.", (_PSUTIL,)),
    Kind("node.heartbeat", STATUS_TOPIC, "node id", "The node is alive.", (
        _PSUTIL, Field("key_count", (int,), "keys in its store"))),
    Kind("host.registered", STATUS_TOPIC, "host id (32 hex digits)", "A host's name, address and fixed facts; the last one counts.", (
        Field("name", (str,), "host name as given"),
        Field("ip", (str,), "address as the agent knows it"),
        Field("facts", (dict,), "agent, os, kernel, driver, cuda, cpu model, simulated (bool), gpus: see docs/events.md"))),
    Kind("host.renamed", STATUS_TOPIC, "host id", "People call a host otherwise than it calls itself.", (
        Field("name", (str,), "the name; empty takes an earlier one back"),)),
    Kind("host.merged", STATUS_TOPIC, "host id", "Another host goes on with this one's history: one machine under two ids.", (
        Field("into", (str,), "id of the host that stays; empty takes an earlier merge back"),)),
    Kind("host.forgotten", STATUS_TOPIC, "host id", "All that is kept of a host is removed; the log keeps its events.", ()),
    Kind("host.sample", STATUS_TOPIC, "host id", "One sample; the event's time is when it was taken.", (
        Field("run", (bytes,), "8 random bytes of the agent's start"),
        Field("seq", (int,), "number of the sample in this run, from 1"),
        Field("sample", (dict,), "see dimint/sample.py and docs/events.md"))),
    Kind("host.gap", STATUS_TOPIC, "host id", "Samples that the agent had to drop.", (
        Field("run", (bytes,), "the agent's run"),
        Field("first_seq", (int,), "first sample dropped"),
        Field("last_seq", (int,), "last sample dropped"),
        Field("reason", (str,), "why"))),
    Kind("gpu.lost", STATUS_TOPIC, "host id", "A GPU stopped answering or is missing.", (
        Field("uuid", (str,), "the GPU's UUID"), Field("state", (str,), "lost, hung or missing"))),
    Kind("gpu.back", STATUS_TOPIC, "host id", "A GPU answers again.", (Field("uuid", (str,), "the GPU's UUID"),)),
    Kind("gpu.xid", STATUS_TOPIC, "host id", "The driver reported an error of a GPU; the processes of that second stand in the samples around it.", (
        Field("uuid", (str, _NONE), "the GPU's UUID; nil where the driver does not say which"),
        Field("xid", (int,), "NVIDIA's number of the error"))),
    Kind("driver.changed", STATUS_TOPIC, "host id", "The GPU driver is another one, or comes or goes.", (
        Field("before", (str, _NONE), "its version when the host was last looked at; nil for none"),
        Field("now", (str, _NONE), "its version; nil for none"))),
    Kind("agent.started", STATUS_TOPIC, "host id", "The agent began a run.", (
        Field("run", (bytes,), "the run"), Field("version", (str,), "the agent's version"),
        Field("clean", (bool, _NONE), "whether the run before ended with agent.stopped; nil if there was none"))),
    Kind("agent.stopped", STATUS_TOPIC, "host id", "The agent ended as it was told to.", (
        Field("run", (bytes,), "the run"), Field("last_seq", (int,), "its last sample"))),
    Kind("clock.stepped", STATUS_TOPIC, "host id", "The host's clock was set by more than a second between two samples.", (
        Field("by_ms", (int,), "how far; negative = back"),)),
    Kind("alert.raised", STATUS_TOPIC, "host id", "A rule holds of the host or of one of its GPUs.", (
        _RULE, _SUBJECT,
        Field("severity", (str,), "info, warning or critical"),
        Field("since_ns", (int,), "when what the rule looks at began"),
        Field("text", (str,), "what people are told"))),
    Kind("alert.cleared", STATUS_TOPIC, "host id", "It is over.", (
        _RULE, _SUBJECT,
        Field("since_ns", (int,), "when what the rule looks at ended"),
        Field("text", (str,), "what people are told"))),
    Kind("alert.told", STATUS_TOPIC, "host id", "People were told of an alert, or could not be told.", (
        _RULE, _SUBJECT,
        Field("what", (str,), "raised or cleared"),
        Field("channel", (str,), "webhook or mail"),
        Field("problem", (str, _NONE), "why they could not be told; nil if they were"))),
)  # fmt: skip

KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in _TABLE}


def is_critical(topic: str) -> bool:
    """Whether a reader of the topic must halt at a kind that it does not know."""
    return topic in (KV_TOPIC, CLUSTER_TOPIC)


def problem_of(event: Event, topic: str) -> str | None:
    """What is wrong with an event's fields, in words; None if nothing is. Unknown kinds are the caller's matter.

    More fields than the table lists are allowed: a newer writer may add some at the end.
    """
    kind = KINDS[event[KIND]]
    if kind.topic != topic:
        return f"{kind.name} does not belong into {topic}"
    if (event[KEY] is None) != (kind.key == "nil"):
        return f"{kind.name} {'has no' if kind.key == 'nil' else 'needs a'} key"
    if len(event) < FIELDS + len(kind.fields):
        return f"{kind.name} needs {len(kind.fields)} fields"
    for value, field in zip(event[FIELDS:], kind.fields, strict=False):
        if type(value) not in field.types:
            return f"{kind.name}: {field.name} is {type(value).__name__}"
    return None


def describe(event: Event) -> dict[str, Any]:
    """The event with its fields by name, for people and JSON; an unknown kind keeps them as a list."""
    kind = KINDS.get(event[KIND])
    named = {"kind": event[KIND], "key": event[KEY]}
    if kind is None:
        return named | {"fields": event[FIELDS:]}
    return named | {field.name: value for field, value in zip(kind.fields, event[FIELDS:], strict=False)}
