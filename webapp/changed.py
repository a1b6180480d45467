"""What changed between two instants: hosts come and gone, GPUs lost and back, drivers, MIG layouts, users. [S]"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dimint.webapp.judge import GONE, holder
from dimint.webapp.models import Change, Host, Status

__all__ = ["GpuStanding", "Standing", "changes", "held", "host_changes", "standing_of", "user_changes"]


class GpuStanding(NamedTuple):
    """What of a GPU is compared. `key` is its UUID where it says one."""

    key: str
    name: str
    is_instance: bool
    state: str
    limit_w: int | None
    holder: str | None


class Standing(NamedTuple):
    """What of a host is compared; `gpu_support` is None, and `gpus` none, if it never sent a sample."""

    name: str
    status: Status
    driver: str | None
    gpu_support: str | None
    gpus: tuple[GpuStanding, ...]


def standing_of(host: Host) -> Standing:
    """How a host stands."""
    newest = host.newest
    if newest is None:
        return Standing(host.name, host.status, host.driver, None, ())
    gpus = [
        GpuStanding(
            gpu.uuid or gpu.key,
            f"MIG instance {gpu.index}" if gpu.parent else f"GPU {gpu.index}",
            bool(gpu.parent),
            gpu.state,
            gpu.power_limit_w,
            None if gpu.state in GONE else holder(gpu),
        )
        for gpu in newest.gpus
    ]
    return Standing(host.name, host.status, host.driver, newest.gpu_support, tuple(gpus))


def changes(before: Sequence[Host], after: Sequence[Host]) -> list[Change]:
    """From one instant to a later one, the worst first, then by host. Hosts are told by their ids."""
    old = {host.id: standing_of(host) for host in before}
    new = {host.id: standing_of(host) for host in after}
    found: list[Change] = []
    for host_id, standing in new.items():
        found += host_changes(old.get(host_id), standing)
    for host_id, standing in old.items():
        if host_id not in new:
            found += host_changes(standing, None)
    # of a host that did not report at one of the instants nobody knows who held what then: that is not nobody
    silent = {host.id for host in (*before, *after) if host.status is not Status.RUNNING}
    found += user_changes(*(held(one for host_id, one in hosts.items() if host_id not in silent) for hosts in (old, new)))
    return sorted(found, key=lambda change: (change.rank, change.host or "", change.kind, change.words))


def host_changes(old: Standing | None, new: Standing | None) -> Iterator[Change]:
    """Of one host; None is where it was not, or is not any more."""
    if old is None or new is None:
        if new is not None:
            yield Change("host.new", "→", new.name, "is new")
        if old is not None:
            yield Change("host.gone", "←", old.name, "is not among the hosts any more")
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
    if old.gpu_support is not None and new.gpu_support is not None and new.status is Status.RUNNING:
        if old.gpu_support != new.gpu_support:
            words = f"GPUs: {old.gpu_support} → {new.gpu_support}".replace("_", " ")
            yield Change("gpu.support", "▲", new.name, words)
        if old.gpus != new.gpus:
            yield from _gpu_changes(new.name, old.gpus, new.gpus)


def _gpu_changes(name: str, old: Iterable[GpuStanding], new: Iterable[GpuStanding]) -> Iterator[Change]:
    before = {gpu.key: gpu for gpu in old}
    after = {gpu.key: gpu for gpu in new}
    for key, gpu in after.items():
        was = before.get(key)
        if was is None:
            kind, symbol = ("mig", "▲") if gpu.is_instance else ("gpu.new", "→")
            yield Change(kind, symbol, name, f"{gpu.name} is new")
        elif was.state != gpu.state:
            if gpu.state in GONE:
                yield Change("gpu.lost", "✖", name, f"{gpu.name} {was.state} → {gpu.state}")
            elif gpu.state == "ok" and was.state in GONE:
                yield Change("gpu.back", "●", name, f"{gpu.name} is back ({was.state} before)")
            else:  # asleep, or awake, or a driver that did not answer just then
                yield Change("gpu.state", "·", name, f"{gpu.name} {was.state} → {gpu.state}")
        elif was.limit_w != gpu.limit_w and None not in (was.limit_w, gpu.limit_w):
            yield Change("gpu.limit", "▲", name, f"{gpu.name}: power limit {was.limit_w} → {gpu.limit_w} W")
    for key, gpu in before.items():
        if key not in after:
            kind, symbol = ("mig", "▲") if gpu.is_instance else ("gpu.gone", "✖")
            yield Change(kind, symbol, name, f"{gpu.name} is gone")


def held(hosts: Iterable[Standing]) -> Counter[str]:
    """How many GPUs each user holds."""
    return Counter(gpu.holder for host in hosts for gpu in host.gpus if gpu.holder is not None)


def user_changes(old: Counter[str], new: Counter[str]) -> Iterator[Change]:
    """Who holds more or fewer GPUs than before, the greatest difference first."""
    top = {user for user, _ in new.most_common(1)} - {user for user, _ in old.most_common(1)}
    for user in sorted({*old, *new}, key=lambda user: (-abs(new[user] - old[user]), user)):
        if old[user] == new[user]:
            continue
        words = f"{user}: {old[user]} → {new[user]} GPU"
        if user in top:
            words += ", now holds the most"
        symbol = "→" if not old[user] else "←" if not new[user] else "·"
        yield Change("user", symbol, None, words)
