"""Who may ask: the Host header against DNS rebinding, the network filter against foreign networks. [S]

A page of another site can make a browser send requests here under a name of its own choosing, but not under an address or
under one of this server's names. So every IP address is accepted as Host, and of names only our own.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address

__all__ = ["allows_address", "allows_host", "host_of", "is_foreign_page", "plain_address"]

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?\.?")


def host_of(header: str) -> str | None:
    """The host of a Host header without its port, in small letters; None if the header is malformed."""
    text = header.strip().lower()
    name, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        name = text
    elif not (port.isascii() and (port.isdigit() or port == "")) or len(port) > 5:
        return None
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
        return name if _is_address(name) else None
    return name.removesuffix(".") if _NAME.fullmatch(name) else None


def allows_host(header: str, names: Collection[str]) -> bool:
    """Whether a request with this Host header is meant for this server, which is known under `names` (small letters)."""
    host = host_of(header)
    return host is not None and (_is_address(host) or host == "localhost" or host.endswith(".localhost") or host in names)


def plain_address(address: str) -> str:
    """A client's address as users write it: IPv4 in IPv6 clothes (`::ffff:10.0.0.1`) loses them, a zone goes."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def allows_address(address: str, pattern: re.Pattern[str] | None) -> bool:
    """Whether the network filter lets a client's address pass: the expression must match from its beginning."""
    return pattern is None or pattern.match(plain_address(address)) is not None


def is_foreign_page(origin: str | None, host: str) -> bool:
    """Whether a browser sends this for a page of another site: its Origin is not the Host asked. Scripts send none."""
    return origin is not None and origin.rpartition("://")[2].lower() != host.strip().lower()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
