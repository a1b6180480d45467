"""What changed between two instants: hosts come and gone, GPUs lost and back, drivers, MIG layouts, users. [S]"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from dimint.webapp.judge import GONE, holder, use_of
from dimint.webapp.models import Host, Sampled, Status, Use

__all__ = ["Change", "changes"]

_RANKS: Final = {"✖": 0, "▲": 1, "●": 2, "→": 3, "←": 4, "·": 5}


class Change(NamedTuple):
    """One line. `host` is its name, or None for what concerns all of them; `kind` is one word for programs."""

    kind: str
    symbol: str
    host: str | None
    words: str


def changes(before: Sequence[Host], after: Sequence[Host]) -> list[Change]:
    """From one instant to a later one, the worst first, then by host. Hosts are told by their ids."""
    old = {host.id: host for host in before}
    new = {host.id: host for host in after}
    found: list[Change] = []
    for host in after:
        found += _host_changes(old.get(host.id), host)
    for host in before:
        if host.id not in new:
            found.append(Change("host.gone", "←", host.name, "is not among the hosts any more"))
    found += _user_changes(before, after)
    return sorted(found, key=lambda change: (_RANKS.get(change.symbol, 9), change.host or "", change.kind, change.words))


def _host_changes(old: Host | None, new: Host) -> Iterator[Change]:
    if old is None:
        yield Change("host.new", "→", new.name, "is new")
        return
    if old.name != new.name:
        yield Change("host.renamed", "·", new.name, f"was called {old.name}")
    if old.status is not new.status:
        if new.status is Status.RUNNING:
            yield Change("host.back", "●", new.name, "reports again")
        elif old.status is Status.RUNNING:
            yield Change("host.down", "✖", new.name, "stopped reporting")
    if old.driver != new.driver:
        yield Change("driver", "▲", new.name, f"driver {old.driver or 'none'} → {new.driver or 'none'}")
    if old.newest is not None and new.newest is not None and new.status is Status.RUNNING:
        yield from _gpu_changes(new.name, old.newest, new.newest)


def _gpu_changes(name: str, old: Sampled, new: Sampled) -> Iterator[Change]:
    before = {gpu.uuid or gpu.key: gpu for gpu in old.gpus}
    after = {gpu.uuid or gpu.key: gpu for gpu in new.gpus}
    if old.gpu_support != new.gpu_support:
        yield Change("gpu.support", "▲", name, f"GPUs: {old.gpu_support} → {new.gpu_support}".replace("_", " "))
    for key, gpu in after.items():
        what = f"MIG instance {gpu.index}" if gpu.parent else f"GPU {gpu.index}"
        was = before.get(key)
        if was is None:
            yield Change("mig" if gpu.parent else "gpu.new", "▲" if gpu.parent else "→", name, f"{what} is new")
        elif was.state != gpu.state:
            if gpu.state in GONE:
                yield Change("gpu.lost", "✖", name, f"{what} {was.state} → {gpu.state}")
            elif gpu.state == "ok" and was.state in GONE:
                yield Change("gpu.back", "●", name, f"{what} is back ({was.state} before)")
            else:  # asleep, or awake, or a driver that did not answer just then
                yield Change("gpu.state", "·", name, f"{what} {was.state} → {gpu.state}")
        elif was.power_limit_w != gpu.power_limit_w and None not in (was.power_limit_w, gpu.power_limit_w):
            yield Change("gpu.limit", "▲", name, f"{what}: power limit {was.power_limit_w} → {gpu.power_limit_w} W")
    for key, gpu in before.items():
        if key not in after:
            what = f"MIG instance {gpu.index}" if gpu.parent else f"GPU {gpu.index}"
            yield Change("mig" if gpu.parent else "gpu.gone", "▲" if gpu.parent else "✖", name, f"{what} is gone")


def _held(hosts: Iterable[Host]) -> Counter[str]:
    found: Counter[str] = Counter()
    for host in hosts:
        for gpu in host.newest.gpus if host.newest is not None else ():
            user = holder(gpu)
            if user is not None and use_of(gpu) is not Use.LOST:
                found[user] += 1
    return found


def _user_changes(before: Sequence[Host], after: Sequence[Host]) -> Iterator[Change]:
    # of a host that did not report at one of the instants nobody knows who held what then: that is not nobody
    silent = {host.id for host in (*before, *after) if host.status is not Status.RUNNING}
    old, new = (_held(host for host in hosts if host.id not in silent) for hosts in (before, after))
    top = {user for user, _ in new.most_common(1)} - {user for user, _ in old.most_common(1)}
    for user in sorted({*old, *new}):
        if old[user] == new[user]:
            continue
        words = f"{user}: {old[user]} → {new[user]} GPU"
        if user in top:
            words += ", now holds the most"
        symbol = "→" if not old[user] else "←" if not new[user] else "·"
        yield Change("user", symbol, None, words)
