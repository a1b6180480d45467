"""Whether what a store holds is a prefix of the log."""

from xxhash import xxh3_64_digest

from dimint.errors import OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.log.port import Log
from dimint.node.replica import Meta

__all__ = ["mismatch"]


def mismatch(meta: Meta, generation: str, log: Log, partition: int) -> str | None:
    """Why a store's content cannot be a prefix of the log's partition, in words; None if it ends with a record of it.

    A record that was trimmed away cannot be compared: then the log's generation has to do. The same bytes at the same offset
    are not enough, because a batch may be sent again behind others than before; the leader's reign tells them apart.
    """
    fingerprint = meta.fingerprint
    if fingerprint.generation != generation:
        return f"it was built from another log ({fingerprint.generation}, this is {generation})"
    start, end = log.bounds(KV_TOPIC, partition)
    if meta.next_offset > end:
        return f"it holds records up to {meta.next_offset}, the log ends at {end}"
    if meta.next_offset < start:
        return f"it ends at {meta.next_offset}, the log starts at {start}"
    if fingerprint.offset >= start:
        try:
            records = log.read(KV_TOPIC, partition, fingerprint.offset, max_records=1)
        except OffsetOutOfRange:
            return None
        if not records or records[0].offset != fingerprint.offset or xxh3_64_digest(records[0].value) != fingerprint.digest:
            return f"record {fingerprint.offset} of the log is another one than it has applied"
        if -1 not in (fingerprint.reign, records[0].reign) and fingerprint.reign != records[0].reign:
            return f"record {fingerprint.offset} of the log was appended again, in reign {records[0].reign} of a leader"
    return None
