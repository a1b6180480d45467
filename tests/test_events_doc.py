"""docs/events.md against the code: its tables, its bytes and its program.

`python -m tests.test_events_doc` writes the generated parts anew after a change of dimint/events.py or dimint/sample.py.
"""

import inspect
import re
import subprocess
import sys
from pathlib import Path

from dimint import sample
from dimint.batch import decode
from dimint.events import CLUSTER_TOPIC, KINDS, KV_TOPIC, STATUS_TOPIC, Field, describe
from dimint.genesis import DEFAULT_KV_PARTITIONS, DEFAULT_STATUS_PARTITIONS
from dimint.log.reading import DeadLetter
from dimint.sample import GPU_STATES, GPU_SUPPORT
from dimint.settings import SETTINGS

PATH = Path(__file__).parent.parent / "docs" / "events.md"
TEXT = PATH.read_text()
_TYPES = {"NoneType": "nil", "str": "text", "dict": "map"}


def _describe_field(field: Field) -> str:
    types = " or ".join(_TYPES.get(kind.__name__, kind.__name__) for kind in field.types)
    return f"`{field.name}` {types}: {field.text}"


def kinds_table() -> str:
    """The table of kinds as it has to stand in the document."""
    rows = ["| kind | topic | key | what | fields |", "|---|---|---|---|---|"]
    for kind in KINDS.values():
        fields = "<br>".join(map(_describe_field, kind.fields)) or "none"
        cells = (f"`{kind.name}`", f"`{kind.topic}`", kind.key, kind.text, fields)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def sample_text() -> str:
    """The schema of samples as it has to stand in the document."""
    block = (inspect.getdoc(sample) or "").split("::\n", 1)[1]
    return inspect.cleandoc(block)


def _between(start: str, end: str) -> str:
    return TEXT.split(start, 1)[1].split("-->\n", 1)[1].split(end, 1)[0].strip()


def test_kinds_are_all_described() -> None:
    """The table is the code's table, word for word."""
    assert _between("<!-- kinds:", "<!-- end of kinds -->") == kinds_table()


def test_samples_are_described() -> None:
    """The schema is the module's own text, with the states that it lists."""
    assert _between("<!-- samples:", "<!-- end of samples -->") == f"```\n{sample_text()}\n```"
    for name, values in (("`gpu_state`", GPU_SUPPORT), ("`st` of a GPU", GPU_STATES)):
        assert f"| {name} | {', '.join(f'`{value}`' for value in values)} |" in TEXT


def _golden() -> bytes:
    """The bytes of the annotated record: what stands left of the wide gap in each line."""
    block = TEXT.split("### One record, byte by byte", 1)[1].split("```\n", 2)[1]
    codes = [re.split(r"\s{2,}(?=\S)", line.strip())[0] if "  " in line.strip() else line.strip() for line in block.splitlines()]
    return bytes.fromhex("".join(code.replace(" ", "") for code in codes))


def test_the_annotated_bytes_are_a_record() -> None:
    """The example decodes to what its remarks say."""
    header, events, _ = decode(_golden())
    assert (header.number, header.event_count, header.time_ns) == (7, 2, 1_700_000_000_000_000_000)
    assert [describe(event) for event in events] == [
        {"kind": "kv.set", "key": "ключ", "seq": 41, "value": b'J{"a":1}', "ttl_ms": None, "mode": 0},
        {"kind": "barrier", "key": None},
    ]


def test_the_program_reads_records(tmp_path: Path) -> None:
    """The dozen lines run as they stand, on a plain and on a packed record."""
    program = tmp_path / "read.py"
    program.write_text(TEXT.split("```python\n", 1)[1].split("```", 1)[0])
    ran = subprocess.run([sys.executable, program, _golden().hex()], capture_output=True, text=True, check=True)
    header, events, _ = decode(_golden())
    assert ran.stdout.splitlines()[1] == str(events)
    assert str(header.number) in ran.stdout.splitlines()[0]


def test_topics_and_reasons_are_named() -> None:
    """Partition counts, retention and the reasons of dead letters are those of the code."""
    assert f"| `{KV_TOPIC}` | {DEFAULT_KV_PARTITIONS} on" in TEXT
    assert f"| `{STATUS_TOPIC}` | {DEFAULT_STATUS_PARTITIONS} on" in TEXT
    assert f"| `{CLUSTER_TOPIC}` | 1 |" in TEXT
    (keep,) = (row for row in SETTINGS if row.name == "keep_status_log")
    assert f"| {keep.default:g} days, then archived |" in TEXT
    for reason in re.findall(r'"(\w+)"', (inspect.getdoc(DeadLetter) or "")):
        assert f"dead letter (`{reason}`)" in TEXT


def _rewrite() -> None:
    text = TEXT
    for start, end, fresh in (
        ("<!-- kinds:", "<!-- end of kinds -->", kinds_table()),
        ("<!-- samples:", "<!-- end of samples -->", f"```\n{sample_text()}\n```"),
    ):
        text = text.replace(_between(start, end), fresh)
    PATH.write_text(text)


if __name__ == "__main__":
    _rewrite()
