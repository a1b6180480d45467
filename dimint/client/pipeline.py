"""Many calls of the synchronous client under way at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from dimint.client import operations as ops
from dimint.client.calls import Call
from dimint.client.operations import MISSING, CasResult, Key, Operation, Versioned

__all__ = ["Pending", "Pipeline"]

T = TypeVar("T")


class Pending(Generic[T]):
    """A call of a pipeline."""

    def __init__(self, call: Call, finish: Callable[[Sequence[Call]], None]) -> None:
        self._call = call
        self._finish = finish

    def result(self) -> T:
        """Wait for the call; its value, or its error."""
        self._finish([self._call])
        value: T = self._call.result()
        return value


class Pipeline:
    """Sends each call as it is made; `with` waits for all of them and then raises the first error, if there was one.

    Writes of one key are applied in the order in which they were made.
    """

    def __init__(
        self,
        submit: Callable[[Operation[Any], float], Call],
        finish: Callable[[Sequence[Call]], None],
        timeout_s: float,
    ) -> None:
        self._submit = submit
        self._finish = finish
        self._timeout_s = timeout_s
        self._calls: list[Call] = []

    def get(self, key: Key, default: Any = None, *, consistency: str | None = None) -> Pending[Any]:
        return self._add(ops.get(key, default, consistency=consistency))

    def get_versioned(self, key: Key, *, consistency: str | None = None) -> Pending[Versioned]:
        return self._add(ops.get_versioned(key, consistency=consistency))

    def mget(self, keys: Iterable[Key], *, consistency: str | None = None) -> Pending[dict[str, Any]]:
        return self._add(ops.mget(keys, consistency=consistency))

    def set(
        self, key: Key, value: Any, *, ttl: float | None = None, if_absent: bool = False, if_present: bool = False
    ) -> Pending[bool]:
        if if_absent or if_present:
            return self._add(ops.set_if(key, value, if_absent=if_absent, if_present=if_present, ttl=ttl))
        return self._add(ops.set_value(key, value, ttl=ttl))

    def delete(self, key: Key) -> Pending[None]:
        return self._add(ops.delete(key))

    def mset(self, values: Mapping[Any, Any], *, ttl: float | None = None) -> Pending[None]:
        return self._add(ops.mset(values, ttl=ttl))

    def incr(self, key: Key, by: int = 1) -> Pending[int]:
        return self._add(ops.incr(key, by))

    def cas(
        self, key: Key, value: Any, *, expected: Any = MISSING, version: int | None = None, ttl: float | None = None
    ) -> Pending[CasResult]:
        return self._add(ops.cas(key, value, expected=expected, version=version, ttl=ttl))

    def results(self) -> list[Any]:
        """Wait for every call; their values in order. Raises the first error, once all have ended."""
        self._finish(self._calls)
        return [call.result() for call in self._calls]

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.results()
        else:
            self._finish(self._calls)

    def _add(self, op: Operation[T]) -> Pending[T]:
        call = self._submit(op, self._timeout_s)
        self._calls.append(call)
        return Pending(call, self._finish)
