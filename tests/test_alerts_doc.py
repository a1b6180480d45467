"""docs/alerts.md against the code: its conditions, its numbers and its example.

`python -m tests.test_alerts_doc` writes the generated parts anew after a change of consumers/alerts/conditions.py.
"""

import re
import tomllib
from pathlib import Path

from dimint.consumers.alerts.conditions import CONDITIONS, NUMBERS
from dimint.consumers.alerts.rules import parse_rules

PATH = Path(__file__).parent.parent / "docs" / "alerts.md"


def conditions_table() -> str:
    """The table of conditions as it has to stand in the document."""
    rows = ["| condition | holds when | parameters |", "|---|---|---|"]
    for condition in CONDITIONS.values():
        shown = [f"`{each.name}` {each.default:g}{' s' if each.is_span else ''}" for each in condition.parameters]
        rows.append(f"| `{condition.name}` | {condition.text} | {', '.join(shown)} |".replace("|  |", "| |"))
    return "\n".join(rows)


def numbers_text() -> str:
    """The sentence that lists what can be compared."""
    return f"numbers are {', '.join(f'`{number}`' for number in NUMBERS)}."


def test_conditions_and_numbers_are_those_of_the_code() -> None:
    """What can be watched can be looked up."""
    text = PATH.read_text()
    assert conditions_table() in text
    assert numbers_text() in text


def test_the_example_is_a_rules_file() -> None:
    """It can be copied."""
    (example,) = re.findall(r"```toml\n(.*?)```", PATH.read_text(), re.DOTALL)
    assert [rule.name for rule in parse_rules(tomllib.loads(example), "example")] == ["down", "warm"]


if __name__ == "__main__":
    text = re.sub(
        r"\| condition \| holds when.*?\n(?!\|)", lambda _: conditions_table() + "\n", PATH.read_text(), flags=re.DOTALL
    )
    PATH.write_text(re.sub(r"numbers are .*", lambda _: numbers_text(), text))
