"""What every test runs under: property tests without wall-clock deadlines, since machines are shared; real services."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.services.zookeeper import ZooKeeperEnsemble

settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperEnsemble]:
    """One real ZooKeeper for the whole run: every test works below a root of its own. Faults get their own server."""
    with ZooKeeperEnsemble(tick_ms=200) as ensemble:
        yield ensemble
