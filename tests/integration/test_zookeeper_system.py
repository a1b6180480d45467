"""The whole system on the embedded log with ZooKeeper as its registry, on one machine."""

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from dimint.client import Client
from dimint.registry.zookeeper import ZooKeeperRegistry
from tests.support.registry_member import options_at
from tests.support.services.zookeeper import ZooKeeperEnsemble
from tests.support.system import System, wait_until

SESSION_S = 2


def dimint(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dimint", *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_a_system_on_zookeeper_outlives_it(tmp_path: Path) -> None:
    """Served without ZooKeeper, registered again with it, restarted under it; another log is refused."""
    with ZooKeeperEnsemble(tick_ms=200) as ensemble:
        place = ("--zookeeper_hosts", ensemble.hosts, "--zookeeper_session", str(SESSION_S), "--zookeeper_root", "/one/system")
        with System(tmp_path / "data", "--nodes", "2", *place) as system, Client(system.client_address) as client:
            assert client.incr("n") == 1
            shown = _shown(*place)
            assert shown["overlords"] == [f"127.0.0.1:{system.client_port}"]
            assert len(shown["nodes"]) == 2
            assert sorted([shown["groups"][0]["master"], *shown["groups"][0]["slaves"]]) == shown["nodes"]

            refused = dimint(
                "overlord", "run", "--data_dir", str(tmp_path / "other"), "--port_for_client", "0", "--port_for_node", "0", *place
            )
            assert refused.returncode == 1
            assert "work on another log" in refused.stderr
            assert refused.stderr.count("\n") == 1

            before = {role: child.pid for role, child in system.children().items()}
            server = ensemble.servers[0]
            server.server.kill()
            until = time.monotonic() + 1.5 * SESSION_S
            count = 1
            while time.monotonic() < until:
                count += 1
                assert client.incr("n") == count
                assert client.get("n", consistency="strong") == count
                time.sleep(0.05)
            server.start()
            server.wait()
            wait_until(lambda: _shown(*place) == shown, 5, "everybody is registered again")
            assert {role: child.pid for role, child in system.children().items()} == before

            assert dimint("registry", "clear", "--yes", *place).returncode == 0
            assert _shown(*place) == shown

            with closing(ZooKeeperRegistry(options_at(f"zookeeper://{ensemble.hosts}/one/system"))) as registry:
                names = registry.members("node").keys()
                killed = system.children()["node-2"]
                killed.kill()
                wait_until(lambda: killed.pid not in _pids(registry), SESSION_S + 3, "the killed node is gone")
                wait_until(lambda: len(_pids(registry) - {killed.pid}) == 2, 10, "its successor is there")
                assert registry.members("node").keys() == names
            assert client.get("n", consistency="strong") == count
            assert system.stop() == 0
        assert _shown(*place)["nodes"] == []
        assert dimint("registry", "clear", "--yes", *place).returncode == 0
        assert _shown(*place)["groups"] == []


def _pids(registry: ZooKeeperRegistry) -> set[int]:
    return {info["pid"] for info in registry.members("node").values()}


def _shown(*place: str) -> dict[str, Any]:
    done = dimint("registry", "--json", *place)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
