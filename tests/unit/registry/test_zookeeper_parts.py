"""The parts of the ZooKeeper registry that need no ZooKeeper."""

import subprocess
import sys
from pathlib import Path

import pytest

from dimint.errors import RegistryUnavailable, SettingsError
from dimint.registry.zookeeper.layout import Layout, first_in_line, info_of, mark_of, with_mark
from dimint.registry.zookeeper.options import ZooKeeperOptions
from dimint.registry.zookeeper.owner import is_certainly_dead, own_mark
from dimint.registry.zookeeper.registry import ZooKeeperRegistry

A, B = "a" * 32, "b" * 32


def test_the_lowest_number_is_first_in_line() -> None:
    """The number decides and not the name; nodes that nobody of us made do not count."""
    names = [f"{A}-0000000011", f"{B}-0000000009", "other-0000000001", f"{A}-1", "x"]
    assert first_in_line(names) == f"{B}-0000000009"
    assert first_in_line(names, A) == f"{A}-0000000011"
    assert first_in_line([]) is None
    assert first_in_line(names, "c" * 32) is None


def test_parents_are_made_before_their_children() -> None:
    """The lasting nodes come in an order in which they can be created."""
    made = {""}
    for path in Layout("/a/b").lasting:
        assert path.rpartition("/")[0] in made
        made.add(path)
    assert {"/a", "/a/b", "/a/b/members/node", "/a/b/members/overlord"} < made


def test_info_and_mark_come_apart_again() -> None:
    """Also without a mark, and for what another program wrote."""
    assert info_of(with_mark(b'{"a":"\\n"}', "m")) == b'{"a":"\\n"}'
    assert mark_of(with_mark(b"{}", "m 1")) == "m 1"
    assert (info_of(b"{}"), mark_of(b"{}")) == (b"{}", "")


def test_only_a_process_of_this_machine_is_certainly_dead() -> None:
    """A living one is not, nor is one of another machine or container; an ended one is, also when its number is used again."""
    mark = own_mark()
    boot, namespace, pid, start = mark.split(" ")
    assert not is_certainly_dead(mark)
    for foreign in ("", "x", f"other {namespace} 999999 1", f"{boot} pid:[1] 999999 1", f"{boot} {namespace} -1 1", f"{mark} 1"):
        assert not is_certainly_dead(foreign)
    assert is_certainly_dead(f"{boot} {namespace} {pid} {int(start) + 1}")
    child = subprocess.run(
        [sys.executable, "-c", "from dimint.registry.zookeeper.owner import own_mark; print(own_mark())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.startswith(f"{boot} {namespace} ")
    assert is_certainly_dead(child.stdout.strip())


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"root": "/"}, "zookeeper_root"),
        ({"root": "dimint"}, "zookeeper_root"),
        ({"root": "/a//b"}, "zookeeper_root"),
        ({"root": "/a/.."}, "zookeeper_root"),
        ({"root": "/zookeeper/config"}, "zookeeper_root"),
        ({"root": "/" + "x" * 300}, "zookeeper_root"),
        ({"auth": "secret"}, "zookeeper_auth"),
        ({"auth": "plain:user:secret"}, "zookeeper_auth"),
        ({"ca": Path("/etc/hostname")}, "zookeeper_tls"),
        ({"tls": True, "ca": Path("/not/there")}, "zookeeper_ca"),
        ({"tls": True, "key": Path("/etc/hostname")}, "go together"),
    ],
)
def test_wrong_options_are_one_line_without_secrets(wrong: dict[str, object], part: str) -> None:
    """Found before anything is connected."""
    with pytest.raises(SettingsError, match=part) as caught:
        ZooKeeperOptions(hosts=("127.0.0.1:1",), **wrong)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    """A file of anything else is a wrong setting."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match="zookeeper_ca"):
        ZooKeeperRegistry(ZooKeeperOptions(hosts=("127.0.0.1:1",), tls=True, ca=file))


def test_no_server_is_one_line_that_says_what_to_check() -> None:
    """With the reason as the system gives it."""
    with pytest.raises(RegistryUnavailable, match="Connection refused") as caught:
        ZooKeeperRegistry(ZooKeeperOptions(hosts=("127.0.0.1:1",), open_s=0.3))
    assert "is ZooKeeper running" in str(caught.value)


def test_patience_decides_how_long_a_server_is_waited_for() -> None:
    """It is asked again and again, with the time so far and the reason."""
    asked: list[tuple[float, str]] = []

    def patience(waited_s: float, trouble: str) -> bool:
        asked.append((waited_s, trouble))
        return len(asked) < 3

    with pytest.raises(RegistryUnavailable):
        ZooKeeperRegistry(ZooKeeperOptions(hosts=("127.0.0.1:1",), open_s=0.1), patience=patience)
    assert len(asked) == 3
    assert 0.5 < asked[-1][0] < 10
    assert "Connection refused" in asked[-1][1]
