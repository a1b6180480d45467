"""Open the registry that the settings name, and make sure that it and the log belong together."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dimint.errors import LogMismatch, RegistryError, VersionConflict
from dimint.registry.port import Registry
from dimint.service import spawn_thread
from dimint.settings import CommonSettings

__all__ = ["LOG_PATH", "bind_log", "open_registry", "registry_directory"]

LOG_PATH: Final = "log"
"""Value with the id of the log that everybody in this registry works on."""


def registry_directory(settings: CommonSettings) -> Path:
    """Where the embedded registry is: beside the embedded log, so that whoever shares the log shares the registry."""
    return (settings.data_dir if "://" in settings.log else Path(settings.log)) / "registry"


def open_registry(
    settings: CommonSettings,
    *,
    log_id: str | None = None,
    spawn: Callable[[str, Callable[[], None]], threading.Thread] = spawn_thread,
    patience: Callable[[float, str], bool] | None = None,
) -> Registry:
    """A session with the registry; the caller closes it. With `log_id`, the generation of the caller's log, see `bind_log`.

    `patience` is asked now and then while no ZooKeeper answers, with the seconds so far and the trouble, whether to go on.
    Raises RegistryUnavailable if none answers, SettingsError for what can never work, RegistryLost if the directory cannot
    be used.
    """
    registry = _open(settings, spawn, patience)
    if log_id is not None:
        try:
            bind_log(registry, log_id, _where(settings))
        except BaseException:
            registry.close()
            raise
    return registry


def bind_log(registry: Registry, log_id: str, where: str) -> None:
    """Make the log the one of this registry, if it has none yet. Raises LogMismatch if it has another one.

    Two machines, each with a log of its own, in one registry would be two halves that take each other for whole.
    """
    stored = registry.get(LOG_PATH)
    if stored is None:
        try:
            registry.put(LOG_PATH, log_id.encode(), version=0)
            return
        except VersionConflict:  # somebody else was first
            stored = registry.get(LOG_PATH)
    if stored is None:
        raise RegistryError(f"the registry {where} is being cleared", hint="start again")
    if stored.value != log_id.encode():
        theirs = stored.value[:12].decode("ascii", "replace")
        raise LogMismatch(
            f"the processes in the registry {where} work on another log ({theirs!a}…) than this one ({log_id[:12]}…)",
            hint="give this process their log with --log or another registry; if their log is gone for good, stop them all"
            " and run `dimint registry clear`",
        )


def _open(
    settings: CommonSettings,
    spawn: Callable[[str, Callable[[], None]], threading.Thread],
    patience: Callable[[float, str], bool] | None,
) -> Registry:
    if settings.zookeeper_hosts:
        from dimint.registry.zookeeper import ZooKeeperOptions, ZooKeeperRegistry  # only who uses a backend needs its library

        options = ZooKeeperOptions(
            hosts=settings.zookeeper_hosts,
            root=settings.zookeeper_root,
            session_s=settings.zookeeper_session,
            tls=settings.zookeeper_tls,
            ca=settings.zookeeper_ca,
            certificate=settings.zookeeper_certificate,
            key=settings.zookeeper_key,
            auth=settings.zookeeper_auth,
        )
        return ZooKeeperRegistry(options, spawn=spawn, patience=patience)
    from dimint.registry.embedded import EmbeddedRegistry

    return EmbeddedRegistry(registry_directory(settings), spawn=spawn)


def _where(settings: CommonSettings) -> str:
    if settings.zookeeper_hosts:
        return ",".join(settings.zookeeper_hosts) + settings.zookeeper_root
    return str(registry_directory(settings))
