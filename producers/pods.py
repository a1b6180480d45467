"""Names of Kubernetes pods: control groups only tell a pod's uid, the kubelet's log folders tell the name to it."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from dimint.clock import Clock

__all__ = ["PodName", "Pods"]

_LOGS: Final = Path("/var/log/pods")
_LOOK_AGAIN_S: Final = 30.0
_PODS_MAX: Final = 4096


class PodName(NamedTuple):
    """A pod's namespace and name."""

    namespace: str
    name: str


class Pods:
    """Looks names up in the folder of `NAMESPACE_NAME_UID` folders. Belongs to one thread."""

    def __init__(self, clock: Clock, logs: Path = _LOGS) -> None:
        self._clock, self._logs = clock, logs
        self._names: dict[str, PodName] = {}
        self._look_at = 0.0

    def name(self, uid: str) -> PodName | None:
        """None where this host does not tell, or does not let us see."""
        if uid not in self._names and self._clock.monotonic() >= self._look_at:
            self._look_at = self._clock.monotonic() + _LOOK_AGAIN_S
            self._names = self._list()
        return self._names.get(uid)

    def _list(self) -> dict[str, PodName]:
        try:
            with os.scandir(self._logs) as entries:
                folders = [entry.name for entry, _ in zip(entries, range(_PODS_MAX), strict=False)]
        except OSError:
            return {}
        parts = [folder.split("_") for folder in folders]
        return {uid: PodName(namespace, name) for namespace, name, uid in (part for part in parts if len(part) == 3)}
