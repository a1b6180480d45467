"""The key-value commands of the command line, against a modelled overlord."""

import json
from collections.abc import Callable, Iterator

import pytest

from dimint.cli import main
from dimint.cli_client import write_value
from tests.support.fake_doors import fake_door

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dimint(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs one command line; exit status, stdout and stderr."""
    with fake_door() as door:

        def run(*arguments: str) -> tuple[int, str, str]:
            status = main([*arguments, f"--host={door.address.removeprefix('tcp://')}"])
            out, err = capfd.readouterr()
            return status, out, err

        yield run


def test_set_get_and_delete(dimint: Run) -> None:
    """JSON is stored as JSON, other text as a string; strings are printed as they are."""
    assert dimint("set", "k", '{"a": [1, 2.5]}') == (0, "", "")
    assert dimint("get", "k") == (0, '{"a":[1,2.5]}\n', "")
    dimint("set", "k", "plain text")
    assert dimint("get", "k") == (0, "plain text\n", "")
    dimint("set", "k", "12", "--string")
    assert json.loads(dimint("get", "k", "--json")[1])["value"] == "12"
    assert dimint("delete", "k") == (0, "", "")
    assert dimint("get", "k") == (1, "", "dimint: there is no key 'k'\n")


def test_conditions_end_with_status_1(dimint: Run) -> None:
    """And one line on stderr."""
    assert dimint("set", "k", "1", "--if_absent")[0] == 0
    assert dimint("set", "k", "2", "--if-absent") == (1, "", "dimint: 'k' is there already\n")
    assert dimint("cas", "k", "2", "--expected", "1") == (0, "2\n", "")
    assert dimint("cas", "k", "3", "--expected", "1") == (1, "", "dimint: 'k' has version 2\n")
    assert dimint("cas", "k", "3", "--version", "2", "--json")[1] == '{"key":"k","applied":true,"version":3}\n'
    status, out, err = dimint("cas", "k", "3")
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_counting(dimint: Run) -> None:
    """The sum is printed; errors are one line with the wire's name."""
    assert dimint("incr", "n")[1] == "1\n"
    assert dimint("incr", "n", "-5")[1] == "-4\n"
    assert dimint("incr", "n", "--json")[1] == '{"key":"n","value":-3}\n'
    dimint("set", "n", "text")
    status, _, err = dimint("incr", "n")
    assert status == 1
    assert "DIMINT_NOT_INTEGER" in err
    assert err.count("\n") == 1


def test_many_keys(dimint: Run) -> None:
    """mset, mget and scan."""
    assert dimint("mset", "a/1=1", "a/2=two=2", "b=[3]") == (0, "", "")
    assert dimint("mget", "a/2", "a/1") == (0, 'a/2\t"two=2"\na/1\t1\n', "")
    assert dimint("mget", "b", "c") == (1, "b\t[3]\n", "dimint: there is no key 'c'\n")
    assert dimint("scan", "a/")[1] == 'a/1\t1\na/2\t"two=2"\n'
    assert dimint("scan", "--keys", "--limit=2")[1] == "a/1\na/2\n"
    assert dimint("scan", "b", "--json")[1] == '{"key":"b","value":[3]}\n'
    assert dimint("mset", "nosign")[0] == 2


def test_states_are_tables_without_control_characters(dimint: Run) -> None:
    """Names are other people's text."""
    assert dimint("state")[1].splitlines()[1].split()[:3] == ["n1", "master", "-"]
    assert "\x1b" not in dimint("overlord_state")[1]
    assert json.loads(dimint("overlord-state", "--json")[1])[0]["overlord_id"] == "10.0.0.1:5556"


HOSTILE = "a\x1b[2J\x9b31m\u202eb\tc\nd"


def test_hostile_text_breaks_no_line_and_stays_exact_for_programs(dimint: Run) -> None:
    """Keys and values with control characters: escaped in rows, the same value again in JSON, exact where a file gets them."""
    dimint("set", HOSTILE, HOSTILE)
    assert dimint("get", HOSTILE)[1] == HOSTILE + "\n"
    row = dimint("scan")[1]
    assert row == 'a\\u001b[2J\\u009b31m\\u202eb\\tc\\nd\t"a\\u001b[2J\\u009b31m\\u202eb\\tc\\nd"\n'
    assert dimint("mget", HOSTILE)[1] == row
    for arguments in (("get", HOSTILE, "--json"), ("scan", "--json"), ("mget", HOSTILE, "--json")):
        out = dimint(*arguments)[1]
        assert out.removesuffix("\n").isprintable()
        assert HOSTILE in json.loads(out).values()
    assert dimint("get", HOSTILE + "x")[2].removesuffix("\n").isprintable()


def test_a_terminal_gets_no_control_characters(
    dimint: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`get` on a terminal: lines and tabs stay, all else that it would act on is escaped; bytes become base64."""
    dimint("set", "k", HOSTILE)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert dimint("get", "k")[1] == "a\\u001b[2J\\u009b31m\\u202eb\tc\nd\n"
    write_value(b"\x1b[2J")
    assert capfd.readouterr().out == '"G1sySg=="\n'


def test_nobody_there_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """And exit status 1, soon."""
    assert main(["get", "k", "--host=127.0.0.1", "--port-for-client=1", "--timeout=0.2"]) == 1
    assert capfd.readouterr().err.count("\n") == 1
