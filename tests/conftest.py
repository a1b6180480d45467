"""What every test runs under: property tests without wall-clock deadlines, since machines are shared; real services.

Property tests try the same examples each time; `--hypothesis-profile explore` tries others.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.services.zookeeper import ZooKeeperEnsemble

if sys.dont_write_bytecode:
    # the tests start Python many hundred times, and compiling our modules is half of such a start: where nothing may be
    # written beside the sources, bytecode is kept apart from them
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parent.parent / ".cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, print_blob=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperEnsemble]:
    """One real ZooKeeper for the whole run: every test works below a root of its own. Faults get their own server."""
    with ZooKeeperEnsemble(tick_ms=200) as ensemble:
        yield ensemble
