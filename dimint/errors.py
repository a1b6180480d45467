"""The one error tree. [S]

::

    DimintError
    ├── SettingsError            a setting, flag or file is wrong; the hint says what to do
    ├── BadTime                  a text that names no time
    ├── BadEvent                 what should be an event is none
    ├── BadCursor                a cursor that no answer gave
    ├── BadPosition              a text that names no place in a log
    ├── BadQuery                 a filter, an order or an option of a view that cannot be read
    ├── LogError                 the log port
    │   ├── RecordTooLarge       refused before anything was sent (final)
    │   ├── AppendFailed         certainly not in the log (retriable)
    │   ├── AppendUnknown        may or may not be in the log; only the writer's numbering can tell
    │   ├── OffsetOutOfRange     trimmed away, or past the end: carries the valid bounds
    │   ├── LogUnavailable       the log cannot be reached now (retriable)
    │   ├── LogBroken            the disk or the broker failed for good; the process must end
    │   └── LogMismatch          another log, another genesis, a re-created topic
    ├── FormatError              bytes that are not what they should be
    │   ├── ForeignRecord        not one of our records: a counted dead letter
    │   ├── CorruptRecord        ours, but damaged here: quarantine
    │   ├── UnknownVersion       ours, from a newer program: halt
    │   ├── BadArchive           an archive file that is damaged, cut short or none
    │   └── BadSnapshot          not a snapshot, or a damaged one: nothing of it is used
    ├── NotSafe                  somebody still needs what was to be removed; nothing was
    ├── StoreError               a node's store failed; the process must end
    │   └── StoreFull            no room for more (retriable)
    ├── RegistryError            the registry port
    │   ├── VersionConflict      somebody else wrote first
    │   ├── Fenced               this process no longer leads
    │   ├── RegistryUnavailable  no server of it answers
    │   └── RegistryLost         closed, removed or refused for good; the process ends
    ├── ClientClosed             the client library's own: used after `close`
    └── RequestError             what a client gets; `code` is the wire name
        ├── ParseError, UnknownCommand, KeyRefused … (final)
        └── NodeNotAvailable, NotApplied, Busy, TimedOut … (retriable)

Each class says whether trying again can help (`retriable`), its name on the wire (`code`, requests only) and what an
operator can do (`hint`).
"""

from collections.abc import Mapping
from typing import ClassVar

from dimint.so_far import SoFar

__all__ = [
    "AppendFailed",
    "AppendUnknown",
    "BadArchive",
    "BadCursor",
    "BadEvent",
    "BadPosition",
    "BadQuery",
    "BadSnapshot",
    "BadTime",
    "Busy",
    "ClientClosed",
    "CorruptRecord",
    "DimintError",
    "Fenced",
    "ForeignRecord",
    "FormatError",
    "InternalError",
    "LogBroken",
    "LogError",
    "LogMismatch",
    "LogUnavailable",
    "NodeNotAvailable",
    "NotApplied",
    "NotSafe",
    "NotInteger",
    "NotJson",
    "NotMsgpack",
    "OffsetOutOfRange",
    "OutcomeForgotten",
    "OutcomeUnknown",
    "ParseError",
    "Partial",
    "PositionGone",
    "RecordTooLarge",
    "RegistryError",
    "RegistryLost",
    "RegistryUnavailable",
    "RequestError",
    "SettingsError",
    "StoreError",
    "StoreFull",
    "Superseded",
    "TimedOut",
    "TooLarge",
    "UnknownCommand",
    "UnknownVersion",
    "VersionConflict",
    "WrongLog",
    "error_for_code",
]


class DimintError(Exception):
    """Base of everything this package raises on purpose."""

    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SettingsError(DimintError):
    """A setting is unknown, of the wrong type or out of range."""


class BadTime(DimintError):
    """A text that should name a time (dimint/when.py) does not."""


class BadEvent(DimintError):
    """What somebody gave as an event is none, and why."""


class BadCursor(DimintError):
    """What should say where an answer goes on does not: it is not from an earlier answer."""


class BadPosition(DimintError):
    """A text that should name places in a log (dimint/replay/positions.py) does not."""


class BadQuery(DimintError):
    """What a page, a terminal view or the JSON API was asked for in its address cannot be read."""


class LogError(DimintError):
    """Anything the log port reports."""


class RecordTooLarge(LogError):
    """The record is over RECORD_MAX_BYTES; nothing was sent."""


class AppendFailed(LogError):
    """The record is certainly not in the log and never will be."""

    retriable = True


class AppendUnknown(LogError):
    """The record may be in the log, now or later. `BatchWriter` finds out."""

    retriable = True


class OffsetOutOfRange(LogError):
    """The offset asked for is not in [start, end]."""

    def __init__(self, topic: str, partition: int, offset: int, start: int, end: int) -> None:
        hint = "what was there is trimmed; begin later" if offset < start else ""
        super().__init__(f"offset {offset} of {topic}/{partition} is outside {start}…{end}", hint=hint)
        self.topic, self.partition, self.offset, self.start, self.end = topic, partition, offset, start, end


class LogUnavailable(LogError):
    """The log did not answer in time; nothing is known to be wrong with it. Asking again may help."""

    retriable = True


class LogBroken(LogError):
    """The log can take nothing any more (an fsync failed, the directory is gone). The process ends; never retried."""


class LogMismatch(LogError):
    """This is not the log that was expected: other cluster, other generation, other genesis."""


class FormatError(DimintError):
    """Bytes that cannot be decoded."""


class ForeignRecord(FormatError):
    """The record was not written by this system, or its framing is wrong. Counted as a dead letter."""


class CorruptRecord(FormatError):
    """The record is ours but its checksum or codec fails here. The local store is quarantined."""


class UnknownVersion(FormatError):
    """The record was written by a newer program. The partition halts until this program is upgraded."""


class BadArchive(FormatError):
    """The file is not an archive, or is damaged or cut short. Nothing behind the last sound frame can be trusted."""


class BadSnapshot(FormatError):
    """Bytes that are no snapshot, or one that is cut, damaged or does not have the digest that it names."""


class NotSafe(DimintError):
    """Somebody still needs what was to be removed. Nothing was."""


class StoreError(DimintError):
    """A node's store failed (an fsync, a read): the process ends, what was committed is read again."""


class StoreFull(StoreError):
    """The disk or the map is full: nothing since the last commit is stored."""

    retriable = True


class RegistryError(DimintError):
    """Anything the registry port reports."""

    retriable = True


class RegistryUnavailable(RegistryError):
    """No server of the registry answered in time; nothing is known to be wrong. Asking again may help."""


class VersionConflict(RegistryError):
    """A conditional put found another version than expected."""


class Fenced(RegistryError):
    """The fence of a put is not the current leader's: this process no longer leads."""

    retriable = False


class RegistryLost(RegistryError):
    """The registry is closed, was removed or refuses this process: nothing can be expected of it any more."""


class ClientClosed(DimintError):
    """The client was closed: before the call, or while it waited."""


class RequestError(DimintError):
    """A request's named error. `code` is what stands in `{"error": …}` on the wire."""

    code: ClassVar[str] = "DIMINT_ERROR"


class ParseError(RequestError):
    """Not JSON or msgpack, not a map, or a field is missing or unusable."""

    code = "DIMINT_PARSE_ERROR"


class UnknownCommand(RequestError):
    """The command does not exist. Never used for a missing key."""

    code = "DIMINT_NOT_FOUND"


class NodeNotAvailable(RequestError):
    """No node can serve the key now."""

    code = "DIMINT_NODE_NOT_AVAILABLE"
    retriable = True


class NotApplied(RequestError):
    """The write did not happen and cannot happen any more; sending it again is safe."""

    code = "DIMINT_NOT_APPLIED"
    retriable = True


class OutcomeUnknown(RequestError):
    """The write may or may not happen. With client and seq, send it again or ask `result`.

    The client library fills in which request it was: its first `key`, `client` and `seq`.
    """

    code = "DIMINT_OUTCOME_UNKNOWN"
    retriable = True
    key: str | None = None
    client: str | None = None
    seq: int | None = None


class Superseded(RequestError):
    """A later request of the same client was applied first; this one was not and never will be."""

    code = "DIMINT_SUPERSEDED"


class OutcomeForgotten(RequestError):
    """The request is older than the outcome window: whether it was applied is no longer known."""

    code = "DIMINT_OUTCOME_FORGOTTEN"


class Busy(RequestError):
    """The overlord holds as many requests as it may."""

    code = "DIMINT_BUSY"
    retriable = True


class TimedOut(RequestError):
    """A read did not reach the position it asked for by its deadline.

    `so_far`: of a question for the past while the log is read for its history, how far that is.
    """

    code = "DIMINT_TIMEOUT"
    retriable = True

    def __init__(self, message: str, *, hint: str = "", so_far: SoFar | None = None) -> None:
        super().__init__(message, hint=hint)
        self.so_far = so_far


class TooLarge(RequestError):
    """Key, value or request is over its limit (dimint/limits.py)."""

    code = "DIMINT_TOO_LARGE"


class NotJson(RequestError):
    """The stored value is binary msgpack, which JSON cannot carry."""

    code = "DIMINT_NOT_JSON"


class NotMsgpack(RequestError):
    """The stored value has an integer that msgpack cannot carry."""

    code = "DIMINT_NOT_MSGPACK"


class NotInteger(RequestError):
    """`incr` on a value that is not an integer (or is longer than INTEGER_MAX_DIGITS)."""

    code = "DIMINT_NOT_INTEGER"


class WrongLog(RequestError):
    """A token or position is of another log generation than this one."""

    code = "DIMINT_WRONG_LOG"


class PositionGone(RequestError):
    """A watch was to begin before the oldest change that is still known; `oldest` is the token of that."""

    code = "DIMINT_POSITION_GONE"

    def __init__(self, message: str, *, hint: str = "", oldest: str = "") -> None:
        super().__init__(message, hint=hint)
        self.oldest = oldest


class Partial(RequestError):
    """Some keys of an `mset` failed; `failed` names them: key → wire code."""

    code = "DIMINT_PARTIAL"
    retriable = True

    def __init__(self, message: str, *, hint: str = "", failed: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.failed: dict[str, str] = dict(failed or {})


class InternalError(RequestError):
    """A fault of the server. It is logged there under the request's id."""

    code = "DIMINT_INTERNAL"


_BY_CODE = {cls.code: cls for cls in RequestError.__subclasses__()}


def error_for_code(code: str, message: str = "") -> RequestError:
    """The exception a client raises for a wire code; unknown codes become a plain RequestError that names the code."""
    cls = _BY_CODE.get(code)
    if cls is None:
        return RequestError(f"{code}: {message}" if message else code)
    return cls(message or (cls.__doc__ or code).splitlines()[0])
