"""Registries that several processes share, and a real process that takes part in one until it is killed.

As a program: WHERE join|lead NAME. With "lead" it says the term that it won, and then for every line that comes in
whether it leads now, and what became of a put with its first fence.
"""

import sys
import threading
from pathlib import Path

from dimint.errors import RegistryError
from dimint.registry.embedded import EmbeddedRegistry
from dimint.registry.port import Candidacy, Fence, Registry
from dimint.registry.zookeeper import ZooKeeperOptions, ZooKeeperRegistry

__all__ = ["SESSION_S", "open_at", "options_at"]

SESSION_S = 1.5


def options_at(where: str, **more: object) -> ZooKeeperOptions:
    """Options for zookeeper://HOST:PORT/ROOT."""
    hosts, _, root = where.removeprefix("zookeeper://").partition("/")
    given: dict[str, object] = {"hosts": tuple(hosts.split(",")), "root": f"/{root}", "session_s": SESSION_S, **more}
    return ZooKeeperOptions(**given)  # type: ignore[arg-type]


def open_at(where: str) -> Registry:
    """The registry in a directory, or at zookeeper://HOST:PORT/ROOT."""
    return ZooKeeperRegistry(options_at(where)) if "://" in where else EmbeddedRegistry(Path(where))


def main() -> None:
    where, what, name = sys.argv[1:]
    registry = open_at(where)
    registry.join("node", name, {"who": "child"})
    if what == "join":
        print("here", flush=True)
        sys.stdin.read()
        return
    candidacy = registry.elect("overlord", name)
    woken = threading.Event()
    registry.watch(woken.set)
    while (fence := candidacy.fence()) is None:
        woken.wait(0.05)
    print(f"here {fence.term}", flush=True)
    for _ in sys.stdin:
        print(_put(registry, candidacy, fence), flush=True)


def _put(registry: Registry, candidacy: Candidacy, fence: Fence) -> str:
    leads = "leads" if candidacy.fence() else "waits"
    stored = None
    try:
        stored = registry.get("assignment")
        registry.put("assignment", b"child", version=0 if stored is None else stored.version, fence=fence)
    except RegistryError as error:
        return f"{leads} {type(error).__name__}"
    return f"{leads} stored"


if __name__ == "__main__":
    main()
