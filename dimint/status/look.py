"""Look at registry, log and overlords, each by itself: what does not answer is said, and the rest is shown all the same."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import msgspec

from dimint.assignment import ASSIGNMENT_PATH, decode
from dimint.clock import Clock
from dimint.curve import Key
from dimint.errors import DimintError
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.growth import Growth, growth
from dimint.log.opening import is_missing, open_settings_log
from dimint.log.port import Log
from dimint.registry.opening import open_registry, registry_directory
from dimint.replay.readers import readers_in
from dimint.settings import CommonSettings
from dimint.status.report import LogSeen, RegistrySeen, Seen
from dimint.transport import Context

__all__ = ["look", "registered_overlords"]

_OVERLORDS_SHARE: Final = 0.7
"""Of the time: how long an overlord may wait for the log before it answers with what it knows."""


def look(
    settings: CommonSettings | None, addresses: Sequence[str], timeout_s: float, clock: Clock, key: Key | None = None
) -> Seen:
    """One look. Without `settings` only the overlords at the addresses are asked; without addresses those of the registry.

    Overlords get `timeout_s` to answer, all together. Nothing is written or made.
    """
    failures: list[str] = []
    registry = _registry(settings, failures) if settings else None
    if not addresses and registry is not None:
        addresses = _client_addresses(registry.overlords)
        if not addresses:
            failures.append("no overlord is registered: nothing can be written")
    asked, reply = _overlords(addresses, timeout_s, key)
    if reply is not None and reply.get("log_answers") is False and settings is None:
        failures.append("the log does not answer the overlord")
    log = _log(settings, clock, ends=(STATUS_TOPIC, *([] if reply else [KV_TOPIC])), failures=failures) if settings else None
    if registry is None and log is None and not addresses and not failures:
        assert settings is not None
        failures.append(f"there is no log in {settings.log} and no overlord was named")
    return Seen(registry, log, asked, reply, failures)


def registered_overlords(settings: CommonSettings) -> list[str]:
    """Client addresses, host:port, of the overlords that are alive; nothing is made where there is no registry.

    Raises RegistryError, or SettingsError for what can never work.
    """
    if not settings.zookeeper_hosts and not registry_directory(settings).is_dir():
        return []
    with closing(open_registry(settings)) as registry:
        return _client_addresses(registry.members("overlord"))


def _client_addresses(overlords: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [str(info["client"]).removeprefix("tcp://") for info in overlords.values() if "client" in info]


def _registry(settings: CommonSettings, failures: list[str]) -> RegistrySeen | None:
    if not settings.zookeeper_hosts and not registry_directory(settings).is_dir():
        return None
    try:
        with closing(open_registry(settings)) as registry:
            stored = registry.get(ASSIGNMENT_PATH)
            return RegistrySeen(
                overlords=registry.members("overlord"),
                nodes=registry.members("node"),
                consumers=registry.members("consumer"),
                pages=registry.members("webapp"),
                agents=registry.members("agent"),
                supervisors=registry.members("up"),
                assignment=decode(stored.value) if stored is not None else None,
                readers=readers_in(registry),
            )
    except (DimintError, msgspec.DecodeError) as error:
        failures.append(f"the registry does not answer: {' '.join(str(error).split())}")
        return None


def _log(settings: CommonSettings, clock: Clock, *, ends: Sequence[str], failures: list[str]) -> LogSeen | None:
    if is_missing(settings.log):
        return None
    try:
        with closing(open_settings_log(settings, clock=clock)) as log:
            description, health = log.describe(), log.health()
            return LogSeen(
                description.kind,
                description.url,
                description.generation,
                health,
                _growth(log, {topic.name: topic.partitions for topic in health.topics if not topic.stopped}, clock),
                {
                    topic: [log.bounds(topic, partition).end for partition in range(description.topics[topic])]
                    for topic in ends
                    if topic in description.topics and not any(one.stopped for one in health.topics if one.name == topic)
                },
            )
    except DimintError as error:
        failures.append(f"the log does not answer: {' '.join(str(error).split())}")
        return None


def _growth(log: Log, topics: Mapping[str, int], clock: Clock) -> dict[str, Growth]:
    return {topic: growth(log, topic, partitions, clock.time_ns()) for topic, partitions in topics.items()}


# --- overlords ------------------------------------------------------------------------------------------------------
def _overlords(
    addresses: Sequence[str], timeout_s: float, key: Key | None
) -> tuple[dict[str, str | None], dict[str, Any] | None]:
    """Ask all of them at once for their status; what became of each, and the first answer."""
    asked: dict[str, str | None] = {}
    reply: dict[str, Any] | None = None
    deadline = time.monotonic() + timeout_s
    question = json.dumps({"cmd": "status", "timeout": max(0.1, min(30.0, timeout_s * _OVERLORDS_SHARE))}).encode()
    with closing(Context(key)) as context:
        dealers = {address: context.dealer(f"tcp://{address}") for address in addresses}
        try:
            for dealer in dealers.values():
                dealer.send(question)
            for address, dealer in dealers.items():
                frames = dealer.receive() if dealer.wait(max(0.0, deadline - time.monotonic())) else []
                found = _decoded(frames[0]) if frames else None
                if not frames:
                    asked[address] = f"no answer within {timeout_s:g} s"
                elif found is None or "partitions" not in found:
                    asked[address] = str((found or {}).get("message") or "it is something else than an overlord's client door")
                else:
                    asked[address], reply = None, reply or found
        finally:
            for dealer in dealers.values():
                dealer.close()
    return asked, reply


def _decoded(frame: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
