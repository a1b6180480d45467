"""What `up` hands on to its children."""

from pathlib import Path

from dimint.cli_options import given_flags, given_secrets
from dimint.load import load
from dimint.settings import UpSettings, WebSettings
from dimint.up import children


def test_children_get_the_flags_that_are_theirs() -> None:
    """Each role gets what it knows of what was given, and nothing that was not."""
    given = {"port_for_client": "1", "http_port": "2", "allow_plain": True, "simulate": False, "interval": None, "nodes": "3"}
    assert given_flags("overlord", given) == ["--allow_plain", "--port_for_client=1"]
    assert given_flags("web", given) == ["--http_port=2"]
    assert given_flags("agent", given) == ["--no_simulate"]
    assert given_flags("consumer", given) == []


def test_secrets_do_not_stand_on_command_lines() -> None:
    """A token goes to the pages through their environment, which only this user can read."""
    given = {"token": "abc", "page_title": "x y"}
    assert given_flags("web", given) == ["--page_title=x y"]
    assert given_secrets("web", given) == {"DIMINT_TOKEN": "abc"}
    assert given_secrets("overlord", given) == {}
    assert load(WebSettings, flags={}, environ=given_secrets("web", given)).token == "abc"


def test_one_child_a_process_in_the_order_of_starting(tmp_path: Path) -> None:
    """The overlord first, and everybody waits for it; a log file for each."""
    settings = load(UpSettings, flags={"nodes": 2, "data_dir": str(tmp_path)}, environ={})
    specs = children(settings, ["dimint"], lambda role: [f"--x={role}"], lambda role: {})
    assert [spec.name for spec in specs] == ["overlord", "node-1", "node-2", "consumer", "web", "alerts", "agent"]
    assert [spec.essential_first for spec in specs] == [True, False, False, False, True, False, False]
    assert specs[2].command == ("dimint", "node", "run", "--x=node", "--node_name=2")
    assert specs[2].log_path == tmp_path / "logs/node-2.log"
