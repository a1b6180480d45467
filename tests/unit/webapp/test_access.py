"""Who may ask."""

import re

import pytest

from dimint.webapp.access import allows_address, allows_host, plain_address


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("127.0.0.1:8080", True), ("10.1.2.3", True), ("[::1]:8080", True), ("localhost:1", True), ("a.localhost", True),
        ("Monitor.Lab:8080", True), ("monitor.lab.", True), ("evil.example", False), ("monitor.lab.evil.example", False),
        ("", False), ("monitor.lab:port", False), ("[::1", False), ("a b", False), ("x@monitor.lab", False), (":8080", False),
        ("monitor.lab:123456", False), ("[evil.example]", False),
    ],
)  # fmt: skip
def test_host_header(header: str, allowed: bool) -> None:
    """Addresses and our own names pass, foreign names and malformed headers do not."""
    assert allows_host(header, {"monitor.lab"}) is allowed


def test_network_filter() -> None:
    """The expression matches from the beginning of the address as users write it; none lets all pass."""
    pattern = re.compile(r"192\.168\.0\.|10\.")
    assert allows_address("192.168.0.7", pattern)
    assert allows_address("::ffff:10.1.1.1", pattern)
    assert not allows_address("172.16.10.1", pattern)
    assert allows_address("172.16.10.1", None)
    assert plain_address("fe80::1%eth0") == "fe80::1"
