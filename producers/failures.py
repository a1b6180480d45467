"""How often NVML's calls have failed, counted per GPU, since the agent's start. [S]"""

from collections.abc import Iterable, Sequence
from typing import Any

from dimint.sample import Gpu

__all__ = ["Failures"]


class Failures:
    """Counts what readings tell, also over restarts of the process that reads.

    >>> failures = Failures()
    >>> gpu = Gpu(i=0, u="GPU-1", st="ok")
    >>> failures.count([(0, "temperature", 999), (0, "temperature", 999)], [gpu])
    >>> gpu["errs"]
    {'temperature': {'999': 2}}
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, dict[str, int]]] = {}

    def count(self, failed: Iterable[Sequence[Any]], gpus: Sequence[Gpu]) -> None:
        """Take in [place, call, code] of one reading, and put what was counted so far into these GPUs of the sample."""
        uuids = {gpu["i"]: gpu["u"] for gpu in gpus}
        for place, call, code in failed:
            codes = self._counts.setdefault(uuids[place], {}).setdefault(call, {})
            codes[str(code)] = codes.get(str(code), 0) + 1
        for gpu in gpus:
            if counts := self._counts.get(gpu["u"]):
                gpu["errs"] = {call: dict(codes) for call, codes in counts.items()}
