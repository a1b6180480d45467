"""A report (report.py) for people: lines of at most 80 columns, whatever the size of the system. [S]

Node ids are cut to their first 8 digits. More than PARTITION_ROWS_MAX partitions are shown by what they have in common: one
row for all with the same master, slaves and state. Text of other processes is not escaped here: whoever prints does that.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

__all__ = ["WIDTH", "count", "lines", "size"]

WIDTH: Final = 80
PARTITION_ROWS_MAX: Final = 32
BUILDING_MAX: Final = 3
"""Copies of one node whose way is shown; --json has all."""
PROBLEMS_MAX: Final = 20
_LABEL: Final = 12


def lines(report: Mapping[str, Any], *, every_partition: bool = False) -> list[str]:
    """The whole report; `every_partition` gives each partition its own row."""
    return [
        *_problems(report["problems"]),
        *_labelled("log", f"{report['url'] or report['log'] or 'unknown'}"),
        *_labelled("generation", str(report["generation"] or "unknown")),
        *_labelled("durability", str(report["durability"] or "unknown")),
        *_brokers(report["brokers"]),
        *_topics(report["topics"]),
        *_overlords(report["overlords"]),
        *_nodes(report["nodes"]),
        *_consumers(report),
        *_partitions(report["partitions"], every_partition),
    ]


def count(number: float | None) -> str:
    """A number in at most six characters: 999, 9999, 12.3k, 4.5M."""
    if number is None:
        return "?"
    if abs(number) < 10_000:
        return f"{number:.0f}"
    for unit in "kMGT":
        number /= 1000
        if abs(number) < 999.95:
            return f"{number:.1f}{unit}"
    return f"{number:.0f}T"


def size(number: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1023.5:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


# --- parts ----------------------------------------------------------------------------------------------------------
def _labelled(label: str, text: str) -> list[str]:
    """`label text`, the text wrapped beside it."""
    wrapped = textwrap.wrap(text, WIDTH - _LABEL, break_long_words=True) or [""]
    return [f"{label:<{_LABEL}}{wrapped[0]}", *(" " * _LABEL + more for more in wrapped[1:])]


def _row(text: str) -> str:
    """A row of a list under a label, cut at the width."""
    line = " " * _LABEL + text
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _problems(problems: Sequence[str]) -> Iterator[str]:
    if not problems:
        yield from _labelled("state", "healthy")
        return
    yield from _labelled("state", f"NOT HEALTHY: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}")
    for problem in problems[:PROBLEMS_MAX]:
        wrapped = textwrap.wrap(problem, WIDTH - 4)
        yield from (f"{'  ! ' if not number else '    '}{line}" for number, line in enumerate(wrapped))
    if len(problems) > PROBLEMS_MAX:
        yield f"    … and {len(problems) - PROBLEMS_MAX} more: see --json"


def _brokers(brokers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if brokers:
        yield from _labelled("brokers", f"{sum(broker['up'] for broker in brokers)} of {len(brokers)} up")
    for broker in brokers:
        yield _row(f"{broker['id']:<4}{broker['address']}{'' if broker['up'] else '  DOWN'}")


def _topics(topics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if topics:
        yield f"{'topics':<{_LABEL}}{'':<15}{'parts':>5}{'copies':>8}{'lacking':>9}{'events/day':>12}{'bytes/day':>12}"
    for topic in topics:
        growth = topic["growth"]
        copies = f"{topic['copies_needed']} of {topic['copies']}" if topic["copies"] > 1 else "1"
        events = f"~{count(growth['events_per_day'])}" if growth else "?"
        grows = f"~{size(growth['bytes_per_day'])}" if growth else "?"
        yield _row(f"{topic['name']:<15}{topic['partitions']:>5}{copies:>8}{topic['lacking']:>9}{events:>12}{grows:>12}")
    young = [topic["growth"]["over_s"] for topic in topics if topic["growth"] and topic["growth"]["events_per_day"]]
    if young and min(young) < 86_000:
        yield from _labelled("", f"growth as seen over {_duration(min(young))}")


def _overlords(overlords: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _labelled("overlords", str(len(overlords)))
    for overlord in overlords:
        answers = {True: "answers", False: "DOES NOT ANSWER", None: "not asked"}[overlord["answers"]]
        yield _row(f"{overlord['overlord_id'] or overlord.get('client') or ''}  {answers}")


def _nodes(nodes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _labelled("nodes", str(len(nodes)))
    for node in nodes:
        address = str(node.get("client") or "").removeprefix("tcp://")
        work = f"{node['masters']} master, {node['slaves']} slave"
        yield _row(f"{node['node_id'][:8]:<10}{address:<23}{work:<20}{_node_state(node)}")
        keys = node.get("key_count")
        if node["copies"]:
            progress = _progress(node)
            yield _row(f"  {count(keys)} keys{', ' + progress if progress else ''}")
        for way in [way for way in node["building"] if way["rate"]][:BUILDING_MAX]:
            yield _row(f"  {_way(way)}")


def _way(way: Mapping[str, Any]) -> str:
    """How one copy is being built: from whom, how far, how fast."""
    if way["from"] == "peer":
        return f"partition {way['partition']} from node {way['node'][:8]}: {way['percent']:.0f} %, {size(way['rate'])}/s"
    return f"partition {way['partition']} from the log: {way['percent']:.0f} %, {count(round(way['rate']))} records/s"


def _node_state(node: Mapping[str, Any]) -> str:
    if not node["up"]:
        return "DOWN"
    if node.get("leaving"):
        return "leaving"
    if not node["copies"]:
        return "unknown"
    return "caught up" if node["caught_up"] == node["copies"] else "catching up"


def _progress(node: Mapping[str, Any]) -> str:
    """How far a node that catches up is, by records of the log."""
    if node["caught_up"] == node["copies"]:
        return ""
    whole = node["applied"] + node["behind"]
    done = 100 * node["applied"] // whole if whole else 0
    return f"{node['caught_up']} of {node['copies']} caught up, {count(node['behind'])} records behind ({done} %)"


def _consumers(report: Mapping[str, Any]) -> Iterator[str]:
    consumers, pages = report["consumers"], report["pages"]
    yield from _labelled("consumers", "?" if consumers is None else str(len(consumers)))
    for consumer in consumers or ():
        lag = "unknown" if consumer["lag"] is None else count(consumer["lag"])
        yield _row(f"{consumer.get('host') or '?'} pid {consumer.get('pid')}  lag {lag}  {consumer.get('tables') or ''}")
    where = ", ".join(str(page.get("http") or page["id"]) for page in pages or ())
    yield from _labelled("pages", "?" if pages is None else where or "0")
    yield from _labelled("agents", count(report["agents"]))
    dead = ", ".join(f"{number} in {topic}" for topic, number in report["dead_letters"].items() if number)
    yield from _labelled("dead letters", " " + (dead or "none"))


# --- partitions -----------------------------------------------------------------------------------------------------
def _partitions(partitions: Sequence[Mapping[str, Any]], every: bool) -> Iterator[str]:
    yield from _labelled("partitions", str(len(partitions)))
    if not partitions:
        return
    yield f"  {'partition':<14}{'master':<10}{'slaves':<19}{'position':>15}{'lag':>8}  digests"
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for partition in partitions:
        same = partition["master"], tuple(partition["slaves"]), partition["digests"]
        alone = every or len(partitions) <= PARTITION_ROWS_MAX
        groups.setdefault(partition["partition"] if alone else same, []).append(partition)
    for group in groups.values():
        yield _partition_row(group)


def _partition_row(group: Sequence[Mapping[str, Any]]) -> str:
    """One row for partitions that have the same master, slaves and state: their range of positions, and the largest lag."""
    first = group[0]
    positions = [one["position"] if one["position"] is not None else one["end"] for one in group]
    known = [position for position in positions if position is not None]
    lags = [one["lag"] for one in group if one["lag"] is not None]
    where = "?" if not known else count(min(known)) if min(known) == max(known) else f"{count(min(known))}…{count(max(known))}"
    if len(group) == 1:
        where = str(known[0]) if known else "?"
    slaves = first["slaves"]
    shown = " ".join(slave[:8] for slave in slaves[:2]) + ("…" if len(slaves) > 2 else "")
    master = (first["master"] or "NONE")[:8]
    lag = count(max(lags, default=None))
    row = f"  {_names(group):<14}{master:<10}{shown:<19}{where:>15}{lag:>8}  {first['digests']}"
    return row if len(row) <= WIDTH else row[: WIDTH - 1] + "…"


def _names(group: Sequence[Mapping[str, Any]]) -> str:
    numbers = [one["partition"] for one in group]
    if len(numbers) == 1:
        return str(numbers[0])
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}-{numbers[-1]}"
    listed = ",".join(map(str, numbers))
    return listed if len(listed) <= 13 else f"{len(numbers)} of them"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
