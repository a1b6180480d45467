"""Read commands: requests → parts for the replicas, their answers → replies. [S]

A client that does not wait for replies expects a read to see the writes it sent before on the same connection. So a read
whose place in the order of replies is behind others waits for its connection's writes in the partition to be settled; its
reply could not leave before theirs anyway. Requests with an id have no place in the order and do not wait.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dimint import limits
from dimint.door import Answer, Found
from dimint.errors import RequestError, TooLarge
from dimint.overlord.pending import Pending, PendingTable
from dimint.overlord.reads import Part, ReadTable, Want, parts_by_partition
from dimint.overlord.strong import StrongReads
from dimint.overlord.writes import Lane
from dimint.wire import age_of, failed, format_token, got, min_offsets, reply
from dimint.wire_types import Get, Mget, Scan

__all__ = ["KeyValueReads", "merge"]

MGET_MAX_BYTES = 32 << 20
"""Most bytes of values in the reply of one mget."""
_NEARLY_FULL_BYTES = limits.SCAN_MAX_BYTES - limits.VALUE_MAX_BYTES - limits.KEY_MAX_BYTES
"""A replica's page of at least so many bytes may have been cut short before its limit of items."""


class _Gather:
    """Answers of several partitions."""

    __slots__ = ("age_ms", "bytes", "found", "left", "pages", "tokens")

    def __init__(self, left: int) -> None:
        self.left = left
        self.bytes = 0
        self.found: dict[str, Found] = {}
        self.pages: list[list[Found]] = []
        self.tokens: dict[int, int] = {}
        self.age_ms = 0

    def add_age(self, age_ms: int) -> None:
        """The oldest part counts; −1, where one is not known, stays."""
        self.age_ms = -1 if min(age_ms, self.age_ms) < 0 else max(age_ms, self.age_ms)


class KeyValueReads:
    """The read commands of the key-value store."""

    def __init__(
        self,
        table: PendingTable,
        lanes: Sequence[Lane],
        reads: ReadTable,
        strong: StrongReads,
        partition_of: Callable[[str], int],
        generation: str,
    ) -> None:
        self._table, self._lanes, self._reads, self._strong = table, lanes, reads, strong
        self._partition_of, self._generation = partition_of, generation

    # --- requests ----------------------------------------------------------------------------------------------------
    def get(self, pending: Pending) -> None:
        request: Get = pending.request
        key = request.key
        partition = self._partition_of(key)
        part = Part(pending, [key], self._got)
        line = pending.line
        if request.min_position is None and request.consistency != "strong" and (line is None or line[0] is pending):
            self._reads.add(Want(partition, self._lanes[partition].acknowledged_end, False), part)
        else:
            self._add(partition, part, request, self._tokens(request))

    def mget(self, pending: Pending) -> None:
        request: Mget = pending.request
        tokens = self._tokens(request)
        groups = list(parts_by_partition(request.keys, self._partition_of))
        pending.gather = _Gather(len(groups))
        if not groups:
            self._table.finish(pending, reply(pending.form, request, {"values": {}}, positions=[], versions={}))
        for partition, keys in groups:
            self._add(partition, Part(pending, keys, self._mgot, partition), request, tokens)

    def scan(self, pending: Pending) -> None:
        request: Scan = pending.request
        tokens = self._tokens(request)
        pending.gather = _Gather(len(self._lanes))
        for partition in range(len(self._lanes)):
            part = Part(pending, [], self._scanned, partition)
            # one more than wanted, to know whether anything is left
            self._add(partition, part, request, tokens, (request.prefix, request.after, request.limit + 1))

    def overdue(self, pending: Pending) -> None:
        """Its deadline is over."""
        self._table.fail(pending, self._reads.overdue_error(pending))

    # --- answers -----------------------------------------------------------------------------------------------------
    def _tokens(self, request: Get | Mget | Scan) -> dict[int, int]:
        return min_offsets(request, self._generation, len(self._lanes))

    def _add(
        self,
        partition: int,
        part: Part,
        request: Get | Mget | Scan,
        tokens: dict[int, int],
        scan: tuple[str, str | None, int] | None = None,
    ) -> None:
        line = part.pending.line
        if line is not None and line[0] is not part.pending:
            start = partial(self._start, partition, part, request, tokens, scan)
            if self._lanes[partition].read_behind(line, partial(self._settled, part, start)):
                return
        self._start(partition, part, request, tokens, scan)

    def _settled(self, part: Part, start: Callable[[], None], _: int | RequestError) -> None:
        """The write before it is in the log, or will not be."""
        if part.pending.reply is None:
            start()

    def _start(
        self,
        partition: int,
        part: Part,
        request: Get | Mget | Scan,
        tokens: dict[int, int],
        scan: tuple[str, str | None, int] | None,
    ) -> None:
        if request.consistency == "strong":
            self._strong.add(partition, part, scan)
        elif request.min_position is not None:
            self._reads.add(Want(partition, tokens.get(partition, 0), True, scan), part)
        else:
            self._reads.add(Want(partition, self._lanes[partition].acknowledged_end, False, scan), part)

    def _token(self, partition: int, offset: int) -> str:
        return format_token(self._generation, partition, offset)

    def _got(self, part: Part, answer: Answer | RequestError, found: dict[str, Found]) -> None:
        pending = part.pending
        if isinstance(answer, RequestError):
            self._table.fail(pending, answer)
            return
        request: Get = pending.request
        one = found.get(request.key)
        # a get without new-style fields needs no token, and making one costs as much as the whole reply
        token = ""
        if request.id is not None or request.min_position is not None or request.client is not None:
            token = self._token(self._partition_of(request.key), answer.next_offset)
        try:
            if one is None:
                frame = got(pending.form, request, None, 0, token, answer.age_ms)
            else:
                frame = got(pending.form, request, one.value, one.version, token, answer.age_ms)
        except RequestError as error:
            frame = failed(pending.form, request, error)
        self._table.finish(pending, frame)

    def _mgot(self, part: Part, answer: Answer | RequestError, found: dict[str, Found]) -> None:
        pending = part.pending
        gather = self._gathered(part, answer)
        if gather is None or isinstance(answer, RequestError):
            return
        gather.found.update(found)
        gather.bytes += sum(len(one.value) for one in answer.found)
        if gather.bytes > MGET_MAX_BYTES:
            self._table.fail(pending, TooLarge(f"the values take more than {MGET_MAX_BYTES} bytes; ask for fewer keys"))
            return
        if gather.left:
            return
        request: Mget = pending.request
        load, every = pending.form.load, gather.found
        asked = [every[key] for key in dict.fromkeys(request.keys) if key in every]
        try:
            values = {one.key: load(one.value) for one in asked}
        except RequestError as error:
            self._table.fail(pending, error)
            return
        versions = {one.key: one.version for one in asked}
        more = {"positions": self._positions(gather), "versions": versions, "age": age_of(gather.age_ms)}
        frame = reply(pending.form, request, {"values": values}, **more)
        self._table.finish(pending, frame)

    def _scanned(self, part: Part, answer: Answer | RequestError, found: dict[str, Found]) -> None:
        pending = part.pending
        gather = self._gathered(part, answer)
        if gather is None or isinstance(answer, RequestError):
            return
        gather.pages.append(answer.found)
        if gather.left:
            return
        request: Scan = pending.request
        items, after = merge(gather.pages, request.limit)
        try:
            fields: dict[str, Any] = {"items": [[one.key, pending.form.load(one.value)] for one in items], "next": after}
        except RequestError as error:
            self._table.fail(pending, error)
            return
        more = {"positions": self._positions(gather), "age": age_of(gather.age_ms)}
        self._table.finish(pending, reply(pending.form, request, fields, **more))

    def _gathered(self, part: Part, answer: Answer | RequestError) -> _Gather | None:
        pending = part.pending
        if pending.reply is not None:
            return None
        if isinstance(answer, RequestError):
            self._table.fail(pending, answer)
            return None
        gather: _Gather = pending.gather
        gather.left -= 1
        gather.add_age(answer.age_ms)
        gather.tokens[part.tag] = min(answer.next_offset, gather.tokens.get(part.tag, answer.next_offset))
        return gather

    def _positions(self, gather: _Gather) -> list[str]:
        return [self._token(partition, offset) for partition, offset in sorted(gather.tokens.items())]


def merge(pages: list[list[Found]], limit: int) -> tuple[list[Found], str | None]:
    """One page out of the pages of all partitions, each asked for `limit` + 1 items, and where the next page starts.

    A page that its replica may have cut by size says nothing about what comes after its last key: the merged page ends
    there at the latest. Byte order of UTF-8 is the order of Python's strings.
    """
    certain: str | None = None
    for page in pages:
        size = sum(len(one.key) + len(one.value) for one in page)
        if page and len(page) <= limit and size >= _NEARLY_FULL_BYTES:
            certain = page[-1].key if certain is None else min(certain, page[-1].key)
    merged = sorted((one for page in pages for one in page), key=lambda one: one.key)
    items: list[Found] = []
    size = 0
    for one in merged:
        size += len(one.key) + len(one.value)
        if len(items) == limit or (certain is not None and one.key > certain) or (items and size > limits.SCAN_MAX_BYTES):
            break
        items.append(one)
    more = len(items) < len(merged) or certain is not None
    return items, items[-1].key if more and items else None
