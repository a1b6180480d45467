"""Composes one overlord from its settings."""

import socket

from dimint.collector import tune_collector
from dimint.curve import read_key
from dimint.errors import SettingsError
from dimint.genesis import GenesisSettings
from dimint.log.waiting import open_when_there
from dimint.overlord.loop import Addresses, Overlord
from dimint.overlord.membership import Ports
from dimint.process_state import own_address
from dimint.registry.waiting import open_registry_when_there
from dimint.service import Service
from dimint.settings import OverlordSettings
from dimint.system_clock import SystemClock

__all__ = ["run"]

ANY_ADDRESS = {"0.0.0.0", "::", "*"}  # noqa: S104 - recognised, not bound


def run(settings: OverlordSettings, service: Service) -> None:
    """Open log and registry, serve until the service stops, close them again."""
    clock = SystemClock()
    host = socket.gethostname()
    if settings.port_for_client and settings.port_for_client == settings.port_for_node:
        raise SettingsError("port_for_client and port_for_node are the same", hint="give one of them another number")
    wanted = GenesisSettings(
        hash_range=settings.hash_range if "hash_range" in settings.given else None,
        kv_partitions=settings.partitions if "partitions" in settings.given else None,
    )
    log, found = open_when_there(settings, wanted=wanted, clock=clock, process="overlord", service=service)
    try:
        registry = open_registry_when_there(settings, log_id=found.generation, service=service)
        try:
            tune_collector()
            overlord = Overlord(
                found,
                Ports(log, registry, clock),
                host=host,
                addresses=Addresses(
                    settings.bind,
                    settings.advertise or (own_address() if settings.bind in ANY_ADDRESS else settings.bind),
                    settings.port_for_client,
                    settings.port_for_node,
                    settings.allow_plain,
                    read_key(settings.key_file),
                ),
                heartbeat_s=settings.heartbeat,
                max_slave_count=settings.max_slave_count,
                spawn=service.spawn,
                ready=service.ready,
            )
            service.run(overlord)
        finally:
            registry.close()
    finally:
        log.close()
