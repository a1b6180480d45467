"""docs/protocol.md is the contract: its tables name exactly what the code has."""

import re
from pathlib import Path

import msgspec

from dimint import errors, limits
from dimint.wire_types import COMMANDS, Request

TEXT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()


def _section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _commands() -> dict[str, set[str]]:
    """Command → the fields that its rows name."""
    found: dict[str, set[str]] = {}
    for row in re.findall(r"^\| `(\{\"cmd\".*?)` *(?:or .*?)?\|", _section("Commands"), re.MULTILINE):
        names = re.findall(r'"(\w+)":', row)
        cmd = re.findall(r'"cmd":"(\w+)"', row)[0]
        found.setdefault(cmd, set()).update(names[1:])
    return found


def test_every_command_is_in_the_table_and_the_other_way_round() -> None:
    """A command without a row, or a row without a command, is a broken promise."""
    assert set(_commands()) == set(COMMANDS)


def test_fields_in_the_table_are_fields_of_the_commands() -> None:
    """What a row shows is what the command takes."""
    for cmd, names in _commands().items():
        known = {field.encode_name for field in msgspec.structs.fields(COMMANDS[cmd])}
        assert names <= known, f"{cmd} has no {names - known}"
        # `partitions` of a scan is for the nodes' own doors
        own = known - {field.encode_name for field in msgspec.structs.fields(Request)} - {"version", "if_absent", "if_present"}
        assert own - names <= {"partitions"}, f"{cmd} also has {own - names}"


def test_the_error_table_is_the_error_tree() -> None:
    """Every wire code stands in the table with whether it is retriable, and no other."""
    listed = {
        name: retriable == "yes"
        for names, retriable in re.findall(r"^\| (`DIMINT_.*?`) \| (yes|no) \|", _section("Errors"), re.MULTILINE)
        for name in re.findall(r"DIMINT_\w+", names)
    }
    assert listed == {cls.code: cls.retriable for cls in errors.RequestError.__subclasses__()}


def test_named_limits_are_the_limits() -> None:
    """Numbers in the text are the ones that are enforced."""
    assert f"1 to {limits.KEY_MAX_BYTES} bytes" in TEXT
    assert limits.VALUE_MAX_BYTES == 1 << 20
    assert f"{limits.VALUE_MAX_DEPTH} levels" in TEXT
    assert limits.REQUEST_MAX_BYTES == 8 << 20
    assert f"last {limits.OUTCOME_WINDOW} outcomes" in TEXT
    assert f"at most {limits.SCAN_MAX_ITEMS}" in TEXT
    assert f"at most {limits.PUBLISH_MAX_EVENTS} a request" in TEXT
    assert f"0 < t ≤ {limits.READ_WAIT_MAX_MS // 1000}" in TEXT
