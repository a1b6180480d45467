"""What the tests on real processes share."""

import os

import pytest

from tests.support.services.kafka import KafkaCluster, shared_broker


@pytest.fixture(scope="session")
def broker() -> KafkaCluster:
    """The broker of the whole run, which nobody disturbs."""
    return shared_broker()


@pytest.fixture
def prefix() -> str:
    """Of topics that nobody else has."""
    return f"{os.urandom(6).hex()}."
