"""Open the registry that the settings name."""

import threading
from collections.abc import Callable
from pathlib import Path

from dimint.errors import SettingsError
from dimint.registry.embedded import EmbeddedRegistry
from dimint.registry.port import Registry
from dimint.service import spawn_thread
from dimint.settings import CommonSettings

__all__ = ["open_registry", "registry_directory"]


def registry_directory(settings: CommonSettings) -> Path:
    """Where the embedded registry is: beside the embedded log, so that whoever shares the log shares the registry."""
    return (settings.data_dir if "://" in settings.log else Path(settings.log)) / "registry"


def open_registry(
    settings: CommonSettings, *, spawn: Callable[[str, Callable[[], None]], threading.Thread] = spawn_thread
) -> Registry:
    """A session with the registry; the caller closes it.

    Raises SettingsError for a registry that this build does not have, RegistryLost if the directory cannot be used.
    """
    if settings.zookeeper_hosts:
        raise SettingsError(
            f"zookeeper_hosts: {','.join(settings.zookeeper_hosts)}: this version has no ZooKeeper",
            hint="leave zookeeper_hosts out to use the registry in the data directory",
        )
    return EmbeddedRegistry(registry_directory(settings), spawn=spawn)
