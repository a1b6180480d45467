"""One call of the user's, from `submit` until it ended with a value or an error. [S]"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from dimint.client.content import Form
from dimint.client.network import Part
from dimint.client.operations import Operation
from dimint.errors import DimintError

__all__ = ["Call", "Todo", "backoff_s"]

BACKOFF_S: Final = 0.02
BACKOFF_MAX_S: Final = 0.5


class Todo(NamedTuple):
    """A request that is yet to be sent, not before that time. `may_be_direct`: to a node if one serves the keys."""

    not_before: float
    keys: tuple[str, ...]
    form: Form
    may_be_direct: bool = False


@dataclass(slots=True, eq=False)
class Call:
    """State of one call.

    parts, todo  requests under way and requests to send; a read ends when both are empty
    reply        what the parts said so far, as one reply map
    problem      the last retriable error: what the user gets if time runs out
    A write also has: `seq` of its last issue; `again`, keys known not to be written yet; `failed`, keys with a final
    error; `successors`, the next writes of its keys that were sent.
    """

    number: int
    op: Operation[Any]
    deadline: float
    patience_s: float
    consistency: str
    on_done: "Callable[[Call], None] | None" = None
    parts: dict[int, Part] = field(default_factory=dict)
    todo: list[Todo] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    problem: DimintError | None = None
    sent_at: float = 0.0
    tries: int = 0
    done: bool = False
    value: Any = None
    error: Exception | None = None
    seq: int | None = None
    again: list[str] = field(default_factory=list)
    failed: dict[str, DimintError] = field(default_factory=dict)
    successors: "list[Call]" = field(default_factory=list)
    partitions: tuple[int, ...] = ()

    def result(self) -> Any:
        """The value, or raise the error; only once `done`."""
        assert self.done
        if self.error is not None:
            raise self.error
        return self.value


def backoff_s(tries: int) -> float:
    """Pause before try number `tries`, 1 being the first repetition."""
    return float(min(BACKOFF_S * 2 ** min(tries, 10), BACKOFF_MAX_S))
