"""The shapes of the JSON that the web app gives and takes, as JSON Schema (2020-12). [S]

Maps may get more keys at any time, so readers must pass over what they do not know; the tests allow none that is not here.
"""

from typing import Any, Final, TypeAlias

from dimint.webapp.times import NO_ENTRY

__all__ = ["SCHEMAS", "Schema", "ref"]

Schema: TypeAlias = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def _record(text: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "description": text,
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def _said(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}


def _maybe(kind: str, text: str) -> Schema:
    return {"type": [kind, "null"], "description": text}


def _list(of: Schema, text: str = "") -> Schema:
    return {"type": "array", "items": of, **({"description": text} if text else {})}


def _map(of: Schema, text: str) -> Schema:
    return {"type": "object", "additionalProperties": of, "description": text}


_INT: Final[Schema] = {"type": "integer"}
_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_HOURS: Final[Schema] = {"type": "number", "minimum": 0}
_NUMBER_OR_TEXT: Final[Schema] = {"type": ["number", "string", "null"]}

_VALUE: Final[dict[str, Schema]] = {
    "value": {"description": "any JSON; integers of any length are exact"},
    "value_msgpack": _said(_TEXT, "of a value with bytes in it: the base64 of its msgpack"),
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Error": _record(
        "What is wrong, in one line.",
        {"status": {"const": "ERROR"}, "status_code": _INT, "message": _TEXT},
    ),
    "Ok": _record("A report is in the log.", {"status": {"const": "OK"}, "status_code": {"const": 200}}),
    "Registered": _record(
        "A sender's id, which it keeps, and the name that it is shown under.",
        {"id": {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "register_name": _TEXT, "status": {"const": "OK"},
         "status_code": {"const": 200}},
    ),
    "States": _map(ref("HostState"), "Host name → host."),
    "HostState": _record(
        "A host with its samples, the oldest first.",
        {
            "data": _list(ref("Entry")),
            "ip_address": _TEXT,
            "status": {"enum": ["running", "waiting for re-uplink", "down"]},
        },
        {
            "simulated": {"const": True},
            "backfilled": _said({"const": True}, "at a past time: this sample came so late that nobody saw it then"),
            "cursor": _maybe("string", "of a range: where the rest begins; null at its end"),
        },
    ),
    "Entry": _record(
        "One sample.",
        {
            "gpu_data": _map(ref("Gpu"), "`gpu:0` … → GPU; empty for a host without any."),
            "timestamp": {
                "anyOf": [
                    _said(_INT, "YYYYMMDDhhmmss in the server's time zone"),
                    _said({"const": NO_ENTRY}, "it never reported"),
                ]
            },
        },
        {"cpu_data": ref("Cpu")},
    ),
    "Cpu": _record(
        "What a host tells of its processor and memory; null is not available. All of it is there unless `fields` asks for less.",
        {},
        {
            "cores": _maybe("integer", "how many it has"),
            "cpu_percent": _maybe("number", "use of all of them, in tenths of a percent"),
            "load": {"type": ["array", "null"], "items": {"type": "number"}, "description": "of 1, 5 and 15 minutes"},
            "memory_total": _maybe("integer", "MiB"),
            "memory_used": _maybe("integer", "MiB"),
        },
    ),
    "Gpu": _record(
        "A GPU in one sample; null is not available. All but `state` is there unless `fields` asks for less.",
        {},
        {
            "device_num": _INT,
            "uuid": _maybe("string", "of the GPU or MIG instance"),
            "gpu_name": _maybe("string", "model"),
            "temperature": _maybe("integer", "°C"),
            "total_memory": _maybe("integer", "MiB"),
            "available_memory": _maybe("integer", "MiB"),
            "used_memory": _maybe("integer", "MiB"),
            "timestamp": _said(_TEXT, "YYYY/MM/DD hh:mm:ss.mmm"),
            "gpu_volatile": _maybe("integer", "utilisation in %"),
            "processes": _list(ref("Process")),
            "state": _said(_TEXT, "where it is not `ok`: `lost`, `hung`, `missing`, `suspended`, `unknown`"),
        },
    ),
    "Process": _record(
        "A process on a GPU; null is not available.",
        {
            "pid": _maybe("string", "as digits"),
            "name": _maybe("string", "program"),
            "user": _maybe("string", "login name"),
            "used_memory": _maybe("integer", "MiB of the GPU"),
        },
    ),
    "Report": _map(
        {
            "type": "object",
            "description": "A GPU. Every field may be missing or null, numbers may be text; what is no number is not available.",
            "properties": {
                **dict.fromkeys(
                    ("device_num", "temperature", "total_memory", "available_memory", "used_memory", "gpu_volatile"),
                    _NUMBER_OR_TEXT,
                ),
                **{name: {"type": ["string", "null"]} for name in ("uuid", "gpu_name", "timestamp")},
                "processes": {
                    "type": ["array", "null"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "pid": _NUMBER_OR_TEXT, "used_memory": _NUMBER_OR_TEXT,
                            "name": {"type": ["string", "null"]}, "user": {"type": ["string", "null"]},
                        },
                    },
                },
            },
        },
        "`gpu:0` … → GPU, in MiB, °C and %.",
    ),
    "Accounting": _record(
        "GPU-hours of a range, who held most first.",
        {
            "from": _TIME,
            "to": _TIME,
            "sharing": {"enum": ["full", "equal", "memory"]},
            "by": _list({"enum": ["user", "host"]}),
            "gpu_hours": _list(ref("GpuHours")),
            "capacity": _said(_HOURS, "all GPU time of the hosts, from the first sample of each on"),
            "without_samples": _said(_HOURS, "what of it nobody knows about"),
            "error_bound": _said(_TEXT, "what cannot be known better, in words"),
            "error_bound_s": _said(
                {"type": "number", "minimum": 0}, "s: how far each start and end of a process may be off; 0 without any sample"
            ),
        },
    ),
    "GpuHours": _record(
        "One line; `user` null is time without samples.",
        {"held": _HOURS, "active": _HOURS, "wasted": _HOURS, "unknown": _HOURS},
        {"user": _maybe("string", "who held"), "host": _TEXT},
    ),
    "Alerts": _record("The open alerts, the worst first.", {"alerts": _list(ref("Alert"))}),
    "Alert": _record(
        "An open alert.",
        {
            "severity": _TEXT, "rule": _TEXT, "host": _said(_TEXT, "its name"),
            "subject": _said(_TEXT, "UUID of the GPU; empty for the host itself"),
            "where": _said(_TEXT, "the subject as it is shown"), "text": _TEXT,
            "since": _TIME, "raised": _TIME, "told": _said(_FLAG, "whether somebody was told"),
        },
    ),
    "Users": _record(
        "Who held GPUs, the longest first, in GPU-hours, and what each of them holds at `to`.",
        {
            "from": _TIME, "to": _TIME,
            "users": _list(_record("A user.", {
                "user": _TEXT, "gpus": _said(_COUNT, "GPUs held"), "idle": _said(_COUNT, "of these, that do nothing"),
                "held": _HOURS, "active": _HOURS, "wasted": _HOURS, "unknown": _HOURS,
            })),
        },
    ),
    "Changes": _record(
        "What is different at `to`, and what happened in between, the oldest first.",
        {
            "from": _TIME, "to": _TIME,
            "changes": _list(_record("A difference.", {"kind": _TEXT, "host": _TEXT, "text": _TEXT})),
            "events": _list(ref("Happened")),
        },
    ),
    "Log": _record(
        "What happened: counts of every kind, and the newest events, the newest first.",
        {
            "from": _TIME, "to": _TIME, "more": _said(_FLAG, "there is more than was read: the newest of it are counted"),
            "first": _said(_TIME, "where the first step of the counts begins"), "step_s": _COUNT,
            "counts": _map(_list(_COUNT), "Kind → number of events in each step."),
            "events": _list(ref("Happened")),
        },
    ),
    "LogEvents": _record(
        "Events of the log: counts of every kind, and those that were searched for.",
        {
            "from": _TIME, "to": _TIME, "first": _said(_TIME, "where the first step of the counts begins"), "step_s": _COUNT,
            "counts": _map(_list(_COUNT), "Kind → number of events in each step."),
            "counted_from": {**_maybe("string", "only from then on everything is counted yet; ask again"), "format": "date-time"},
            "events": _list(ref("LogEvent"), "the newest first; from positions on the oldest first"),
            "left_out": _said(_COUNT, "events of the same records that are not in the list"),
            "next": {"type": ["object", "null"], "additionalProperties": _TEXT, "description": "words that go on"},
        },
    ),
    "LogEvent": _record(
        "An event as `dimint events --json` prints it; docs/events.md has the fields of each kind.",
        {
            "position": _TEXT, "index": _COUNT, "id": _TEXT, "kind": _TEXT, "key": _maybe("string", "null: it has none"),
            "time_ns": _INT, "log_time_us": _COUNT, "by": ref("Writer"),
            "fields": {"type": "object", "additionalProperties": True},
        },
    ),
    "Unread": _record(
        "Records that no reader took in.",
        {
            "complete": _said(_FLAG, "whether the whole log was looked at; ask again"),
            "records": _list(
                _record(
                    "A record.",
                    {
                        "position": _TEXT, "time": _TIME, "bytes": _COUNT, "detail": _TEXT,
                        "reason": {"enum": ["foreign", "framing", "fields", "partition", "newer", "damaged"]},
                        "stops": _said(_FLAG, "whether readers stop here instead of passing over it"),
                        "redriven": _maybe("string", "where what stands for it was appended"),
                    },
                    {"hex": _said(_TEXT, "its bytes, of one that was asked for")},
                )
            ),
        },
    ),
    "Writer": _record(
        "Who wrote it.",
        {"client": _maybe("string", "the client's id, if it gave one"), "host": _TEXT, "process": _TEXT},
    ),
    "Cluster": _record(
        "The cluster at a moment.",
        {
            "at": {**_maybe("string", "null is now"), "format": "date-time"}, "epoch": _said(_COUNT, "number of the assignment"),
            "note": _maybe("string", "what is not known"),
            "overlords": _list(ref("Member")), "nodes": _list(ref("Member")),
            "partitions": _list(
                _record(
                    "Who holds a partition; what is known of now only is null for another time.",
                    {
                        "partition": _COUNT, "master": _maybe("string", "null: nobody"), "slaves": _list(_TEXT),
                        "moving_to": _list(_TEXT, "nodes that it moves to"), "end": _maybe("integer", "next offset of the log"),
                        "lag": _maybe("integer", "records that the replica furthest behind lacks"),
                        "problem": _maybe("string", "what is wrong"),
                    },
                )
            ),
            "happened": _list(_record("An event.", {"time": _TIME, "kind": _TEXT, "text": _TEXT}), "the newest first"),
        },
    ),
    "Member": _record(
        "An overlord or a node.",
        {
            "id": _TEXT, "address": _said(_TEXT, "its door for clients"),
            "since": {**_maybe("string", "when it came"), "format": "date-time"},
            "keys": _maybe("integer", "of a node, now"), "cpu_percent": _maybe("number", "of a core, now"),
        },
    ),
    "Keys": _record(
        "A page of the keys that start with `prefix`, in the order of their bytes; those of now without who set them.",
        {
            "prefix": _TEXT, "at": {**_maybe("string", "null is now"), "format": "date-time"},
            "next": _maybe("string", "`after` of the next page"),
            "keys": _list({"anyOf": [ref("KeyChange"), ref("KeyValue")]}),
        },
    ),
    "KeyValue": _record("A key; without a value if that is binary.", {"key": _TEXT}, _VALUE),
    "Key": _record(
        "What had set a key; null if it was not there.",
        {"key": _TEXT, "at": {**_maybe("string", "null is now"), "format": "date-time"},
         "change": {"anyOf": [ref("KeyChange"), {"type": "null"}]}},
    ),
    "KeyHistory": _record(
        "Changes of a key.",
        {"key": _TEXT, "changes": _list(ref("KeyChange")), "next": _maybe("string", "`after` of the next page")},
    ),
    "KeyChange": _record(
        "A change of a key; what removed it has no value.",
        {
            "kind": {"enum": ["set", "cas", "incr", "delete", "expire"]}, "key": _TEXT, "version": _COUNT,
            "time": _TIME, "log_time_us": _said(_COUNT, "the same in µs since 1970"),
            "position": _said(_TEXT, "where it stands in the log"), "index": _said(_COUNT, "and in its batch"),
            "by": ref("Writer"),
        },
        _VALUE,
    ),
    "Differences": _record(
        "A page of the keys that have another value at `to` than at `from`; null: there was none.",
        {
            "prefix": _TEXT, "from": _TIME, "to": _TIME, "next": _maybe("string", "`after` of the next page"),
            "differences": _list(
                _record(
                    "A key.",
                    {"key": _TEXT, **{
                        name: {"anyOf": [ref("KeyChange"), {"type": "null"}]} for name in ("before", "after")
                    }},
                )
            ),
        },
    ),
    "Happened": _record("Something that happened on a host.", {"time": _TIME, "host": _TEXT, "kind": _TEXT, "text": _TEXT}),
    "Lines": _record(
        "A terminal view line by line.",
        {
            "lines": _list(
                _record("A line.", {"host": _maybe("string", "whom it is about; null for headings and totals"), "text": _TEXT})
            ),
            "at": _said(_TEXT, "the time shown; empty for now"),
        },
    ),
    "Charts": _map({}, "`tree` and `plots`, for the page itself: their form may change with any version."),
}  # fmt: skip
