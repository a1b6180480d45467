"""The settings table and what makes settings objects of it."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.errors import SettingsError
from dimint.load import CONFIG_MAX_BYTES, load, read_config
from dimint.settings import (
    IGNORED_NAMES,
    ROLES,
    SETTINGS,
    AgentSettings,
    AlertsSettings,
    AnySettings,
    CommonSettings,
    ConsumerSettings,
    NodeSettings,
    OverlordSettings,
    ToolSettings,
    UpSettings,
    WebSettings,
    canonical_name,
    is_loopback,
    nearest_name,
    parse,
    role_of,
    settings_of,
)

CLASSES: tuple[type[AnySettings], ...] = (
    ToolSettings,
    OverlordSettings,
    NodeSettings,
    ConsumerSettings,
    WebSettings,
    AlertsSettings,
    AgentSettings,
    UpSettings,
)


def overlord(environ: dict[str, str] | None = None, **flags: object) -> OverlordSettings:
    return load(OverlordSettings, flags=flags, environ={"HOME": "/home/u", **(environ or {})})


def lines_of(cls: type[CommonSettings], **flags: object) -> list[str]:
    """The error lines of loading."""
    with pytest.raises(SettingsError) as caught:
        load(cls, flags=flags, environ={})
    return str(caught.value).splitlines()


def test_every_class_has_exactly_the_rows_of_its_role() -> None:
    """A field without a row, or a row that a process never sees, is a mistake in the table (`up` hands rows on)."""
    assert {role_of(cls) for cls in CLASSES} == set(ROLES)
    for cls in CLASSES:
        names = {field.name for field in fields(cls)} - {"given"}
        rows = {row.name for row in settings_of(role_of(cls))}
        assert names <= rows
        if cls is not UpSettings:
            assert names == rows


def test_the_table_is_consistent() -> None:
    """Names are unique, defaults pass their own parser, `up` can hand on what it takes, no old name means two things."""
    names = [row.name for row in SETTINGS]
    old = [name for row in SETTINGS for name in row.old_names]
    assert len(set(names + old)) == len(names + old)
    assert not IGNORED_NAMES & {*names, *old}
    for row in SETTINGS:
        assert row.help.endswith(".")
        assert row.roles <= set(ROLES)
        assert row.roles != {"up"} or row.name == "nodes"
        if row.default not in (None, (), ""):
            assert parse(row.name, row.default) == row.default


def test_defaults_are_the_documented_ones() -> None:
    """What the original's users know without saying it."""
    settings = overlord()
    assert (settings.port_for_client, settings.port_for_node, settings.max_slave_count) == (5556, 5557, 2)
    assert (settings.bind, settings.allow_plain, settings.zookeeper_hosts) == ("127.0.0.1", False, ())
    assert settings.genesis == (None, None, None)
    web = load(WebSettings, flags={}, environ={})
    assert (web.http_port, web.page_size, web.order, web.term_width, web.date_order) == (8080, 8, "name", 80, "YMD")
    assert web.down_threshold == 60
    assert load(AgentSettings, flags={}, environ={}).interval == 5


def test_later_sources_win(tmp_path: Path) -> None:
    """Default < file < environment < flag, and `given` names what was set at all."""
    file = tmp_path / "c.toml"
    file.write_text("port_for_client = 1\nport_for_node = 2\nmax_slave_count = 3\n")
    settings = overlord(
        {"DIMINT_PORT_FOR_NODE": "22", "DIMINT_MAX_SLAVE_COUNT": "33"}, config_path=str(file), max_slave_count="333"[:2]
    )
    assert (settings.port_for_client, settings.port_for_node, settings.max_slave_count) == (1, 22, 33)
    settings = overlord({"DIMINT_CONFIG_PATH": str(file), "DIMINT_MAX_SLAVE_COUNT": "4"}, max_slave_count=5)
    assert (settings.port_for_client, settings.port_for_node, settings.max_slave_count) == (1, 2, 5)
    assert settings.given == {"port_for_client", "port_for_node", "max_slave_count"}


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data directory, and the log in it unless it is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert overlord({"XDG_DATA_HOME": "/x"}).data_dir == Path("/x/dimint")
    assert overlord().data_dir == tmp_path / "home/.local/share/dimint"
    settings = overlord(data_dir="a b/../c")
    assert (settings.data_dir, settings.log) == (tmp_path / "c", str(tmp_path / "c"))
    assert overlord(data_dir="~/x").data_dir == tmp_path / "home/x"
    assert overlord(log="other").log == str(tmp_path / "other")
    assert overlord(log="kafka://a:1,b:2").log == "kafka://a:1,b:2"
    assert overlord(log="kafka://a:1,b:2/staging").log == "kafka://a:1,b:2/staging"
    assert overlord(kafka_servers="a:1,[::1]:2").log == "kafka://a:1,[::1]:2"


def test_the_original_configs_are_understood(tmp_path: Path) -> None:
    """The overlord's JSON config, the node's with its four dead ports, and vesta's names."""
    file = tmp_path / "dimint_overlord.config"
    file.write_text(
        '{"port_for_client": 6556, "port_for_node": "6557", "zookeeper_hosts": "127.0.0.1:2181", '
        '"hash_range": 100, "max_slave_count": 1}'
    )
    settings = overlord(config_path=str(file))
    assert (settings.port_for_client, settings.port_for_node, settings.hash_range) == (6556, 6557, 100)
    assert settings.zookeeper_hosts == ("127.0.0.1:2181",)
    file.write_text(
        '{"host": "10.0.0.1", "port": 5557, "pull_port": 15558, "push_to_slave_port": 1, "receive_slave_port": 2, '
        '"transfer_port": 3}'
    )
    notices: list[str] = []
    node = load(NodeSettings, flags={"config_path": str(file)}, environ={}, notice=notices.append)
    assert (node.overlord_host, node.overlord_port) == ("10.0.0.1", 5557)
    assert len(notices) == 1
    assert "pull_port" in notices[0]
    file.write_text('{"PORT_NUM": 81, "VALID_NETWORK": "^10", "SORT_BY": "ip", "DOWN_TH": 90, "SLACK_BOT_TOKEN": "x"}')
    web = load(WebSettings, flags={"config_path": str(file)}, environ={}, notice=notices.append)
    assert (web.http_port, web.network_filter, web.order, web.down_threshold) == (81, "^10", "address", 90)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"port_for_client": "0x10"}, "port_for_client: '0x10' is not a whole number (--port_for_client)"),
        ({"port_for_client": "70000"}, "port_for_client: '70000' is not between 0 and 65535 (--port_for_client)"),
        ({"port_for_client": ""}, "port_for_client: '' is not a whole number (--port_for_client)"),
        ({"hash_range": "1e3"}, "hash_range: '1e3' is not a whole number (--hash_range)"),
        ({"hash_range": "0"}, "hash_range: '0' is not between 1 and 1048576 (--hash_range)"),
        ({"heartbeat": "-1"}, "heartbeat: '-1' is not between 0.1 and 3600 s (--heartbeat)"),
        ({"heartbeat": "nan"}, "heartbeat: 'nan' is not a number (--heartbeat)"),
        ({"zookeeper_hosts": ""}, "zookeeper_hosts: '' names no server (--zookeeper_hosts)"),
        ({"zookeeper_hosts": ":9092"}, "zookeeper_hosts: ':9092' is not a host name or address (--zookeeper_hosts)"),
        ({"zookeeper_hosts": "a"}, "zookeeper_hosts: 'a' has 'a', which is not host:port (--zookeeper_hosts)"),
        ({"kafka_servers": ""}, "log: 'kafka://' names no server (--kafka_servers)"),
        (
            {"log": "kafka://a:1/x y"},
            "log: 'kafka://a:1/x y' has a name after the / that is not 1 to 100 letters, digits, '.', '_' or '-' (--log)",
        ),
        ({"log": "file:///x"}, "log: 'file:///x' is neither a directory nor kafka://host:port[,…] (--log)"),
        ({"data_dir": "/\udcff"}, "data_dir: '/\\udcff' is not a usable path (--data_dir)"),
        ({"data_dir": "a\nb"}, "data_dir: 'a\\nb' is not a usable path (--data_dir)"),
        ({"bind": "-x"}, "bind: '-x' is not a host name or address (--bind)"),
        ({"bind": "0.0.0.0"}, "bind: 0.0.0.0 is reached from other machines; give a --key_file, or --allow_plain for all"),
        ({"port_for_client": 7, "port_for_node": 7}, "port_for_node: 7 is already port_for_client"),
        ({"log": "a", "kafka_servers": "b:1"}, "log: is given twice (--kafka_servers)"),
    ],
)
def test_wrong_values_are_one_line_each(flags: dict[str, object], line: str) -> None:
    """The line names the setting, the value, what is wrong, and where it stands."""
    assert lines_of(OverlordSettings, **flags) == [line]


def test_tags(tmp_path: Path) -> None:
    """Text of a flag and a table of a file are the same tags, in the order of their keys; what cannot be one is refused."""
    config = tmp_path / "c.toml"
    config.write_text('[tags]\nrack = 12\nlab = "ml"\n')
    for flags in ({"tags": "rack=12, lab = ml"}, {"config_path": str(config)}):
        assert load(AgentSettings, flags=flags, environ={}).tags == (("lab", "ml"), ("rack", "12"))
    assert load(AgentSettings, flags={}, environ={}).tags == ()
    for wrong in ("rack", "=1", "a=1,a=2", "9=x", "a=" + "x" * 101, ",".join(f"k{number}=1" for number in range(33))):
        (line,) = lines_of(AgentSettings, tags=wrong)
        assert line.startswith("tags: ")


def test_several_errors_are_several_lines() -> None:
    """All of them at once, so that nobody fixes them one by one."""
    assert len(lines_of(OverlordSettings, port_for_client="x", hash_range="y", bind=" ")) == 3


def test_rules_of_other_processes() -> None:
    """Simulated hosts need their flag, an agent's target is an address, a secret is never shown."""
    assert lines_of(AgentSettings, hosts="3") == ["hosts: 3 simulated hosts need --simulate"]
    assert lines_of(AgentSettings, to="localhost") == ["to: 'localhost' is not tcp://host:port"]
    assert load(AgentSettings, flags={"to": "tcp://[::1]:5556"}, environ={}).to == "tcp://[::1]:5556"
    assert "hidden" not in lines_of(WebSettings, token="hidden\n")[0]
    assert lines_of(WebSettings, network_filter="(")[0].startswith("network_filter: '(' is not a regular expression")


def test_unknown_names_are_errors_with_the_nearest_name(tmp_path: Path) -> None:
    """In the file and in the environment; a name of another process is fine in both."""
    file = tmp_path / "c.toml"
    file.write_text('prot_for_client = 1\nhttp_port = 81\nquux = 2\n"e\\u001bvil" = 1\n')
    lines = lines_of(OverlordSettings, config_path=str(file))
    assert lines[0] == f"'prot_for_client': no such setting ({file}); did you mean port_for_client?"
    assert lines[1] == f"'quux': no such setting ({file})"
    assert "\x1b" not in lines[2]
    with pytest.raises(SettingsError) as caught:
        overlord({"DIMINT_HTTPPORT": "1"})
    assert str(caught.value) == "'DIMINT_HTTPPORT': no such setting; did you mean DIMINT_HTTP_PORT?"
    overlord({"DIMINT_HTTP_PORT": "1", "DIMINT_BIND": "", "_DIMINT_X": "1"})


def test_unusable_files_are_one_line(tmp_path: Path) -> None:
    """Missing, a directory, a pipe, a device, too large, not UTF-8, damaged, twice the same name."""
    pipe, huge, latin, toml, twice, array = (tmp_path / name for name in "phltwa")
    os.mkfifo(pipe)
    huge.write_bytes(b"#" * (CONFIG_MAX_BYTES + 1))
    latin.write_bytes(b"page_title = '\xff'")
    toml.write_text("a = = 1")
    twice.write_text('{"bind": "::1", "bind": "127.0.0.1"}')
    array.write_text("{" + '"a":[' * 100_000)
    for path in (tmp_path / "none", tmp_path, pipe, Path("/dev/zero"), huge, latin, toml, twice, array):
        (line,) = lines_of(OverlordSettings, config_path=str(path))
        assert line.startswith("config file ")
        assert len(line) < 400
    (line,) = lines_of(OverlordSettings, config_path="a\0b")
    assert "\0" not in line
    assert lines_of(OverlordSettings, config_path="") == ["config file '': not a usable path"]


def test_byte_order_mark_and_carriage_returns_are_fine(tmp_path: Path) -> None:
    """As editors on other systems write files."""
    file = tmp_path / "c"
    file.write_bytes(b"\xef\xbb\xbfport_for_client = 81\r\nmax_slave_count = 0\r\n")
    assert overlord(config_path=str(file)).port_for_client == 81
    file.write_bytes(b'\xef\xbb\xbf\r\n{"port_for_client":\r\n82}')
    assert overlord(config_path=str(file)).port_for_client == 82


def test_a_secret_in_a_file_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    """The file with a token must be private; without one it need not be."""
    file = tmp_path / "c.toml"
    file.write_text('token = "abc"\n')
    file.chmod(0o644)
    (line,) = lines_of(WebSettings, config_path=str(file))
    assert line == f"{file}: has token and can be read by everybody; chmod o-r {file}"
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert load(WebSettings, flags={"config_path": str(file)}, environ={}).token == "abc"
    file.write_text('token = ""\n')
    file.chmod(0o644)
    assert load(WebSettings, flags={"config_path": str(file)}, environ={}).token == ""


def test_names() -> None:
    """Dashes, capitals and old names lead to the table's names."""
    assert canonical_name("Port-For-Client") == "port_for_client"
    assert canonical_name("down_th") == "down_threshold"
    assert canonical_name("nothing") is None
    assert nearest_name("max-slave-counts") == "max_slave_count"
    assert nearest_name("zzzzzz") is None


def test_loopback() -> None:
    """Which bind addresses are private to the machine."""
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "::", "127.0.0.1.example.org")))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def refusal(act: Callable[[], object]) -> str:
    """What the SettingsError says, empty if there is none; anything else that is raised fails the test."""
    try:
        act()
    except SettingsError as error:
        return str(error)
    return ""


@given(st.sampled_from(SETTINGS), VALUES | st.from_regex(r"[-+0-9.eE_xX: ,/a-z\[\]]{0,20}"))
def test_any_value_is_parsed_or_refused_in_one_line(row: Any, value: object) -> None:
    """No value of any type makes anything else than a typed value or one SettingsError."""
    line = refusal(lambda: parse(row.name, value))
    assert line.isprintable()
    assert len(line) < 300


@given(st.dictionaries(st.sampled_from([row.name for row in SETTINGS]) | st.text(max_size=12), VALUES, max_size=6))
def test_any_json_config_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, object]) -> None:
    """Every map that JSON can write gives settings or a SettingsError."""
    file = tmp_path_factory.getbasetemp() / "fuzz.json"
    file.write_text(json.dumps(entries))
    file.chmod(0o600)
    for line in refusal(lambda: load(UpSettings, flags={"config_path": str(file)}, environ={})).splitlines():
        assert line.isprintable()


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Every file content gives entries or one line."""
    file = tmp_path_factory.getbasetemp() / "fuzz.config"
    file.write_bytes(content)
    assert "\n" not in refusal(lambda: read_config(str(file)))
