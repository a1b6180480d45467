"""One GPU or MIG instance of NVML, and the guarded call that every value of it is read with.

Any call may fail by itself on some GPU, driver or container: the value is then None, and the code is kept as long as the
value is missing for it, which is until its tier is read again. What a GPU or driver does not have is asked for once and
never again until NVML is initialised anew, which a new driver forces anyway. Only the codes that speak of the whole GPU
(lost, reset required) end the reading of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pynvml

__all__ = ["LOST", "UNSUPPORTED", "Device", "Lost"]

UNSUPPORTED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)
LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
_FIELD_UNSUPPORTED = (*UNSUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT)
"""Drivers that do not know a field call it an invalid argument."""
_MEMBERS = {1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Member of NVML's value union, by value type; none of the fields read here is a double (0)."""


class Lost(Exception):
    """The GPU is off the bus or must be reset."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(call)
        self.call, self.code = call, code


class Device:
    """Its handle, what it cannot do, and what was read less often. `begin` says whose reading the next calls are."""

    def __init__(self, handle: Any, parent: "Device | None" = None) -> None:
        self.handle, self.parent = handle, parent
        self.uuid: str | None = None
        self.fixed: dict[str, Any] = {}
        self.rare: dict[str, Any] = {}
        self.lost: Lost | None = None
        self.unsupported: set[str] = set()
        self.failed: list[tuple[str, int]] = []
        """Calls that failed in this reading, with their codes, each as often as it did."""
        self.answered = 0
        self._tier = ""
        self._errors: dict[str, dict[str, int]] = {}
        self.instances: list[Device] = []
        self.mig = False
        self.seen_us = 0

    @property
    def errors(self) -> dict[str, int]:
        """Calls whose values are missing, and their codes, of the last reading of every tier."""
        return {name: code for errors in self._errors.values() for name, code in errors.items()}

    def start(self) -> None:
        """A new reading of some tiers."""
        self.failed, self.answered = [], 0

    def begin(self, tier: str) -> None:
        """The calls from here on read this tier anew."""
        self._tier = tier
        self._errors[tier] = {}

    def lacks(self, tier: str) -> bool:
        """Whether something of this tier could not be read."""
        return bool(self._errors.get(tier))

    def lose(self, lost: Lost) -> None:
        """Nothing is known of it any more but that it is lost."""
        self.lost, self.instances, self._errors = lost, [], {"": {lost.call: lost.code}}

    def fail(self, name: str, code: int) -> None:
        """Keep that a value could not be read."""
        self.failed.append((name, code))
        self._errors[self._tier][name] = code

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """The call's value, None if it failed. Raises Lost."""
        if name in self.unsupported:
            return None
        try:
            value = function(self.handle, *args)
        except pynvml.NVMLError as error:
            self._failed(name, error.value, UNSUPPORTED)
            return None
        except UnicodeDecodeError:  # names on WSL
            self.fail(name, pynvml.NVML_ERROR_UNKNOWN)
            return None
        self.answered += 1
        return value

    def text(self, name: str, function: Callable[..., Any]) -> str | None:
        value = self.call(name, function)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def milli(self, name: str, function: Callable[..., Any], *args: Any) -> int | None:
        value = self.call(name, function, *args)
        return None if value is None else int(value) * 1000

    def fields(self, name: str, wanted: Sequence[tuple[str, int, int]]) -> dict[str, int | None]:
        """Many values in one call: rows of (name of the value, NVML's field, scope) → value by name. Raises Lost.

        The call succeeds although some of its values do not: each has a code of its own.
        """
        found: dict[str, int | None] = dict.fromkeys(row[0] for row in wanted)
        asked = [row for row in wanted if row[0] not in self.unsupported]
        if not asked:
            return found
        answers = self.call(name, pynvml.nvmlDeviceGetFieldValues, [(field, scope) for _, field, scope in asked])
        for (value_name, _, _), answer in zip(asked, answers or (), strict=False):
            if answer.nvmlReturn != pynvml.NVML_SUCCESS:
                self._failed(value_name, answer.nvmlReturn, _FIELD_UNSUPPORTED)
            elif answer.valueType in _MEMBERS:
                found[value_name] = int(getattr(answer.value, _MEMBERS[answer.valueType]))
        return found

    def _failed(self, name: str, code: int, unsupported: Sequence[int]) -> None:
        if code in unsupported:
            self.unsupported.add(name)
            return
        self.fail(name, code)
        if code in LOST:
            raise Lost(name, code)
