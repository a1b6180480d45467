"""How to reach ZooKeeper, checked once. [S]"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dimint.errors import SettingsError

__all__ = ["ZooKeeperOptions"]

_ROOT: Final = re.compile(r"(/[A-Za-z0-9_\-][A-Za-z0-9_.\-]*)+")
_AUTH: Final = re.compile(r"(digest|sasl):[^:]+:.+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooKeeperOptions:
    """Servers, the node under which everything stands, and the session. Raises SettingsError for what cannot be.

    session_s     asked of the servers, which answer with what they allow (2 to 20 of their ticks)
    open_s        how long the first server to answer may take when a process starts
    tls           encrypt; the server's certificate and its host name are always checked
    ca            file of the authority that signed it; None = those of the system
    certificate   file of our own certificate and
    key           of its key, where the servers ask for one
    auth          "digest:USER:PASSWORD" or "sasl:USER:PASSWORD"; empty = nobody in particular. With it, only the same user
                  can see or change what is made here.
    """

    hosts: tuple[str, ...]
    root: str = "/dimint"
    session_s: float = 6.0
    open_s: float = 10.0
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    auth: str = ""

    def __post_init__(self) -> None:
        if len(self.root) > 200 or not _ROOT.fullmatch(self.root) or self.root.split("/")[1] == "zookeeper":
            raise SettingsError(
                f"zookeeper_root: {self.root[:60]!a} is not a path of ZooKeeper that a system can have",
                hint="use one like /dimint, with letters, digits and _-. in its names",
            )
        if self.auth and not _AUTH.fullmatch(self.auth):
            raise SettingsError("zookeeper_auth: the value is neither digest:USER:PASSWORD nor sasl:USER:PASSWORD")
        for name, file in (("ca", self.ca), ("certificate", self.certificate), ("key", self.key)):
            if file is not None and not self.tls:
                raise SettingsError(f"zookeeper_{name}: is for encrypted connections only", hint="add zookeeper_tls")
            if file is not None and not file.is_file():
                raise SettingsError(f"zookeeper_{name}: there is no file {file}")
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("zookeeper_certificate and zookeeper_key go together")

    @property
    def credentials(self) -> tuple[str, str, str] | None:
        """Scheme, user and password."""
        if not self.auth:
            return None
        scheme, user, password = self.auth.split(":", 2)
        return scheme, user, password
