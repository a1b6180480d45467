"""ZooKeeper as it is run where it matters: three servers, and encrypted with a user."""

import functools
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dimint.errors import RegistryError, RegistryLost, RegistryUnavailable, SettingsError
from dimint.registry.zookeeper import ZooKeeperOptions, ZooKeeperRegistry
from tests.support.ports import free_ports
from tests.support.registry_member import options_at
from tests.support.services.zookeeper import ZooKeeperEnsemble


def test_one_server_of_three_may_die() -> None:
    """Whichever dies, the processes go on with another server: no member is missed, and no term ends."""
    with ZooKeeperEnsemble(3, tick_ms=200) as ensemble:
        where = f"zookeeper://{ensemble.hosts}/three"
        with closing(ZooKeeperRegistry(options_at(where))) as one, closing(ZooKeeperRegistry(options_at(where))) as two:
            one.join("node", "ab", {})
            two.join("node", "cd", {})
            candidacy = one.elect("overlord", "a")
            _until(candidacy.fence)
            fence = candidacy.fence()
            one.put("assignment", b"0", version=0, fence=fence)
            for version, server in enumerate(ensemble.servers, 1):
                server.server.kill()
                _until(functools.partial(_put, one, version))
                _until(lambda: two.members("node").keys() == {"ab", "cd"})
                assert candidacy.fence() == fence
                server.start()
                server.wait()
            assert one.put("assignment", b"end", version=4, fence=fence) == 5


def test_only_the_same_user_sees_what_is_encrypted(tmp_path: Path) -> None:
    """TLS with a checked host name, and nodes that another user may not read."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine, so no certificates")
    key, certificate, both = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "both.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(key), "-out", str(certificate))
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files)
    subprocess.run(made, check=True, capture_output=True)
    both.write_text(certificate.read_text() + key.read_text())
    (port,) = free_ports(1)
    settings = {
        "secureClientPort": port,
        "secureClientPortAddress": "127.0.0.1",
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.clientAuth": "none",
        "ssl.keyStore.type": "PEM",
        "ssl.keyStore.location": both,
        "ssl.trustStore.type": "PEM",
        "ssl.trustStore.location": certificate,
    }

    def options(host: str, auth: str) -> ZooKeeperOptions:
        return ZooKeeperOptions(hosts=(f"{host}:{port}",), tls=True, ca=certificate, auth=auth, open_s=8)

    with ZooKeeperEnsemble(tick_ms=200, more=settings) as ensemble:
        with pytest.raises(RegistryUnavailable, match="certificate verify failed"):
            ZooKeeperRegistry(options("127.0.0.1", "digest:dimint:secret"))
        with closing(ZooKeeperRegistry(options("localhost", "digest:dimint:secret"))) as registry:
            registry.join("node", "ab", {})
            registry.put("assignment", b"1", version=0)
            with closing(ZooKeeperRegistry(options("localhost", "digest:dimint:secret"))) as same:
                assert same.members("node") == {"ab": {}}
            with pytest.raises(SettingsError, match="refuses"):
                ZooKeeperRegistry(options("localhost", "digest:dimint:guess"))
            with pytest.raises(SettingsError, match="refuses"):
                ZooKeeperRegistry(options_at(f"zookeeper://{ensemble.hosts}/dimint"))


def _put(registry: ZooKeeperRegistry, version: int) -> bool:
    """Raise the version to one more; a put without an answer may have done it."""
    try:
        stored = registry.get("assignment")
        assert stored is not None
        return stored.version == version + 1 or bool(registry.put("assignment", b"%d" % version, version=version))
    except RegistryLost:
        raise
    except RegistryError:
        return False


def _until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except RegistryLost:
            raise
        except RegistryError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.01)
