"""What all clients of Kafka share: their settings, how they are opened, which errors mean what, and a quiet log."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from dimint.errors import LogError, LogUnavailable
from dimint.log.kafka.library import KafkaNetClient, KafkaPartition, kafka_errors
from dimint.log.kafka.options import KafkaOptions

__all__ = ["LIBRARY_ERRORS", "check_reachable", "connect", "is_passing", "quiet_logging", "shared_settings", "to_log_error"]

_Client = TypeVar("_Client")

LIBRARY_ERRORS: Final = (kafka_errors.KafkaError, OSError, RuntimeError, ValueError, TypeError)
"""What the library raises, on purpose or not."""

_RECONNECT_MAX_MS: Final = 1000
_METADATA_PAUSE_MS: Final = 20
_METADATA_AGE_MS: Final = 5000
"""A leader that is cut off from its controller goes on answering, without errors: only other brokers know its successor."""
_REPEAT_S: Final = 30.0
_TOLD_BY_OTHERS: Final = ("kafka.net.transport", "kafka.net.connection", "kafka.net.selector")
"""What these say of a lost connection their users say too."""
_PASSING: Final = (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError, OSError)
"""Errors that go away by themselves. An unknown broker id is a partition without a leader, for now."""


def shared_settings(servers: Sequence[str], options: KafkaOptions) -> dict[str, Any]:
    """For every kind of client."""
    return {
        "bootstrap_servers": list(servers),
        "client_id": "dimint",
        "request_timeout_ms": round(options.request_timeout_s * 1000),
        "bootstrap_timeout_ms": round(options.connect_timeout_s * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
        "metadata_max_age_ms": _METADATA_AGE_MS,
        **options.security,
    }


def connect(make: Callable[..., _Client], settings: dict[str, Any]) -> _Client:
    """Open one client; its threads and sockets go with it if that fails. Raises LogUnavailable or LogError."""
    made: list[Any] = []

    def net_client(**inner: Any) -> Any:
        made.append(KafkaNetClient(**inner))
        cluster = made[-1].cluster
        # there is no setting for it: each new client and each change of leader waits so long for what it asks first
        cluster.config["retry_backoff_ms"] = _METADATA_PAUSE_MS
        cluster.update_metadata = _NewerLeaders(cluster)
        return made[-1]

    try:
        return make(**settings, kafka_client=net_client)
    except LIBRARY_ERRORS as error:
        for client in made:
            client._manager.close()
            client._net.stop()
            client._net.close()
        raise to_log_error(error, "cannot connect to Kafka") from error


class _NewerLeaders:
    """Takes metadata into a client's cluster, but never a leader of an older epoch than the one that is known.

    A leader that was deposed and is cut off from its controller names itself for as long as that lasts. The library takes
    what it hears last and so comes back to it again and again, where Kafka's own client compares epochs.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._update = cluster, cluster.update_metadata

    def __call__(self, metadata: Any) -> Any:
        for topic in metadata.topics:
            if self._cluster.topic_id(topic.name) != topic.topic_id:
                continue  # new, or made anew: its epochs begin again
            for found in topic.partitions:
                place = KafkaPartition(topic.name, found.partition_index)
                known = self._cluster.leader_epoch_for_partition(place)
                if known is not None and 0 <= found.leader_epoch < known:
                    found.leader_id, found.leader_epoch = self._cluster.leader_for_partition(place), known
        return self._update(metadata)


def check_reachable(servers: Sequence[str], timeout_s: float) -> None:
    """Raises LogUnavailable if nobody listens at any of the servers."""
    reasons = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
        except OSError as error:
            reasons.append(f"{server}: {error.strerror or error}")
        else:
            return
    raise LogUnavailable(
        f"kafka://{','.join(servers)}: no broker answers ({'; '.join(reasons)})", hint="start Kafka, or correct the address"
    )


def is_passing(error: BaseException) -> bool:
    """Whether trying again can help."""
    controller_moves = isinstance(error, RuntimeError) and "controller" in str(error)
    return isinstance(error, _PASSING) or controller_moves


def to_log_error(error: BaseException, doing: str) -> LogError:
    """The error of the log port for one of the library."""
    if isinstance(error, LogError):
        return error
    text = f"{doing}: {type(error).__name__}: {error}"[:500]
    return LogUnavailable(text) if is_passing(error) else LogError(text)


class _Quiet(logging.Handler):
    """Passes warnings of the library on to our log, each kind at most once in a while: an outage makes thousands."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: dict[tuple[str, str], float] = {}
        self._lock_said = threading.Lock()
        self._log = logging.getLogger("dimint.kafka")

    def emit(self, record: logging.LogRecord) -> None:
        if record.name in _TOLD_BY_OTHERS:
            return
        now = time.monotonic()
        kind = (record.name, str(record.msg)[:60])
        with self._lock_said:
            if now - self._said.get(kind, -_REPEAT_S) < _REPEAT_S:
                return
            if len(self._said) > 1000:
                self._said.clear()
            self._said[kind] = now
        # never louder than a warning: whether it matters is for who called to say
        self._log.warning("%s: %s", record.name, record.getMessage()[:500])


def quiet_logging() -> None:
    """Once per process; more calls do nothing."""
    library = logging.getLogger("kafka")
    if not any(isinstance(handler, _Quiet) for handler in library.handlers):
        library.addHandler(_Quiet())
        library.setLevel(logging.WARNING)
        library.propagate = False
