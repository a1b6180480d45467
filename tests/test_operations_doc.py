"""docs/operations.md says what the code does: every setting, command and exit code."""

import re
from pathlib import Path

from dimint.cli import COMMANDS
from dimint.service import EXIT_FAILURE, EXIT_HARD, EXIT_OK, EXIT_SETTINGS
from dimint.settings import ROLES, SETTINGS, Setting

DOC = Path(__file__).parent.parent / "docs" / "operations.md"


def row_of(row: Setting) -> str:
    """One line of the document's table of settings."""
    default = (
        "" if row.default in (None, "", ()) else str(row.default).lower() if isinstance(row.default, bool) else str(row.default)
    )
    span = "" if row.low is None or row.high is None else f"{row.low:.12g} … {row.high:.12g}"
    kind = ", ".join(row.choices) if row.choices else row.kind
    processes = "all" if len(row.roles) == len(ROLES) else ", ".join(sorted(row.roles))
    cells = [f"`{row.name}`", kind, default, f"{span} {row.unit}".strip(), processes, row.help.replace("|", "\\|")]
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


def test_every_setting_is_documented_as_it_is() -> None:
    """The table of settings is the table in the code, row by row."""
    documented = [line for line in DOC.read_text().splitlines() if re.match(r"\| `\w+` \|.*\| .* \| .* \| .* \|", line)]
    assert documented == [row_of(row) for row in SETTINGS]


def test_old_names_are_documented() -> None:
    """What an older system called a setting stands beside its name now."""
    text = DOC.read_text()
    for row in SETTINGS:
        for old in row.old_names:
            assert f"`{old}` → `{row.name}`" in text


def test_every_command_is_documented() -> None:
    """A command that nobody can look up does not exist."""
    text = DOC.read_text()
    for name in COMMANDS:
        assert f"`dimint {name}" in text, name


def test_exit_codes_are_documented() -> None:
    """Scripts rely on them."""
    text = DOC.read_text()
    for code in (EXIT_OK, EXIT_FAILURE, EXIT_SETTINGS, EXIT_HARD):
        assert f"| {code} |" in text
