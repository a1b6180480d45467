"""What a commit of the status tables writes, as one number a host; for comparing what versions of the code write. [S]"""

from collections.abc import Iterator
from typing import Any

import msgpack
from xxhash import xxh3_64

from dimint.consumers.projection import Changes

__all__ = ["hashes_of"]


def hashes_of(changes: Changes) -> dict[str, str]:
    """Host id → xxh3_64 of everything that is written for it, in order; what is of no host stands under the empty id."""
    digests: dict[str, xxh3_64] = {}
    for host, row in _rows(changes):
        digests.setdefault(host, xxh3_64()).update(msgpack.packb(row))
    return {host: digest.hexdigest() for host, digest in sorted(digests.items())}


def _rows(changes: Changes) -> Iterator[tuple[str, Any]]:
    for write in changes.writes:
        yield write.host, [type(write).__name__, *write]
    for facts in changes.facts:
        yield facts.id, ["facts", *facts]
    for host, name in sorted(changes.names.items()):
        yield host, ["name", name]
    for latest in changes.latest:
        yield latest.id, ["latest", *latest]
    for run in changes.runs:
        yield run.host, ["run", *run]
    for used in changes.used:
        yield used.host, ["used", *used]
    for covered in changes.covered:
        yield covered.host, ["covered", *covered]
    for name, count in sorted(changes.counts.items()):
        yield "", ["count", name, count]
