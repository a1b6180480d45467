"""What the contract suites share."""

from collections.abc import Iterator

import pytest

from tests.support.services.kafka import end_shared_cluster


@pytest.fixture(scope="module", autouse=True)
def three_brokers_end() -> Iterator[None]:
    """The three brokers that a suite started end with it."""
    yield
    end_shared_cluster()
