"""Reading a stream of server-sent events."""

from collections.abc import Iterator

__all__ = ["events_of"]


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(kind, fields) of each event of a stream's lines; comments and `retry` alone are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            if "event" in fields:
                yield fields["event"], fields
            fields = {}
