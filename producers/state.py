"""What an agent keeps between its starts, in `<data_dir>/agent`: who the host is, which GPUs it had, simulated hosts.

::

    host-id         32 hex digits, and on the second line a fingerprint of the machine id
    gpus.json       GPUs ever seen (gpu_states.Fleet.remember)
    run.json        how the last run ended, and which driver the host had
    simulated.json  seed and ids of simulated hosts

Files are replaced as a whole, so a crash leaves the old or the new one. A file that cannot be read counts as absent: a
new host id then shows the host as a new one, which is better than not showing it.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "LastRun",
    "host_id",
    "known_gpus",
    "known_host_id",
    "last_run",
    "remember_gpus",
    "remember_run",
    "simulated_fleet",
    "write_whole",
]

log = logging.getLogger("dimint.agent")


def host_id(directory: Path, machine: str | None) -> str:
    """The host's id, made at the first call: 32 hex digits.

    `machine` is the system's machine id. Where it is another one than when the id was made, the directory was copied with
    a disk image, and two hosts must not be one: a new id is made, with a notice.
    """
    path = directory / "host-id"
    mark = hashlib.sha256(b"dimint host " + machine.encode()).hexdigest()[:32] if machine else ""
    lines = _read(path).decode("ascii", "replace").split("\n")
    known, known_mark = lines[0], lines[1] if len(lines) > 1 else ""
    if re.fullmatch(r"[0-9a-f]{32}", known):
        if not mark or not known_mark or mark == known_mark:
            return known
        log.warning("this machine is a copy of the one that %s was made on: it gets a host id of its own", path)
    elif known:
        log.warning("%s is damaged: this host gets a new id", path)
    fresh = secrets.token_hex(16)
    write_whole(path, f"{fresh}\n{mark}\n".encode())
    return fresh


def known_host_id(directory: Path) -> str | None:
    """The host's id as an earlier start made it; None if there was none."""
    first = _read(directory / "host-id").decode("ascii", "replace").split("\n")[0]
    return first if re.fullmatch(r"[0-9a-f]{32}", first) else None


def known_gpus(directory: Path) -> dict[str, dict[str, Any]]:
    """What `remember_gpus` kept; rows that are not such are left out."""
    wanted = {"i": int, "st": str, "seen_s": int}
    found = _read_json(directory / "gpus.json")
    return {
        uuid: {"name": None, "mem_tot": None, "pci": None} | row
        for uuid, row in found.items()
        if isinstance(row, dict)
        and all(isinstance(row.get(key), kind) for key, kind in wanted.items())
        and _is_layout(row.get("mig", []))
    }


def _is_layout(value: object) -> bool:
    """Whether this is a list of MIG instances, each with its UUID."""
    return isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("u"), str) for one in value)


def remember_gpus(directory: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    write_whole(directory / "gpus.json", json.dumps(known, indent=1).encode())


class LastRun(NamedTuple):
    """Whether the run ended as it was told to, and the driver of that time: (version or None,), () if nobody looked."""

    clean: bool
    driver: tuple[str | None] | tuple[()]


def last_run(directory: Path) -> LastRun | None:
    """What `remember_run` kept; None at the first start."""
    found = _read_json(directory / "run.json")
    if not isinstance(found.get("clean"), bool):
        return None
    driver = found.get("driver", 0)
    return LastRun(found["clean"], (driver,) if driver is None or isinstance(driver, str) else ())


def remember_run(directory: Path, run: LastRun) -> None:
    write_whole(
        directory / "run.json", json.dumps({"clean": run.clean} | ({"driver": run.driver[0]} if run.driver else {})).encode()
    )


def simulated_fleet(directory: Path, count: int) -> tuple[int, list[str]]:
    """Seed and ids of `count` simulated hosts: the same ones at every start, new ones added."""
    path = directory / "simulated.json"
    found = _read_json(path)
    seed, ids = found.get("seed"), found.get("ids")
    if not isinstance(seed, int) or not isinstance(ids, list) or not all(isinstance(one, str) and len(one) == 32 for one in ids):
        seed, ids = secrets.randbits(32), []
    if len(ids) < count:
        ids += [secrets.token_hex(16) for _ in range(count - len(ids))]
        write_whole(path, json.dumps({"seed": seed, "ids": ids}).encode())
    return seed, ids[:count]


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file durably, or leave it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path) or b"{}")
    except ValueError:
        log.warning("%s is damaged and begun anew", path)
        return {}
    return found if isinstance(found, dict) else {}
