"""The kinds of settings: what a row of the table is, and how a raw value of each kind is read. [S]

A parser gets the row and the raw value (text from a flag or the environment, a JSON or TOML value from a file) and gives
the typed value, or raises ValueError with the rest of the sentence "NAME: VALUE …".
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["IGNORED_NAMES", "PARSERS", "Setting", "shown"]


IGNORED_NAMES: Final = frozenset(
    # node configs of the original; what they set no longer exists
    "pull_port push_to_slave_port receive_slave_port transfer_port "
    # vesta's server and sender
    "db_name db_dir server_name ssl_cert ssl_key server_sleep_time ws_receive_timeout slack_bot_sleep_time "
    "slack_bot_token slack_bot_post_channel schedule_function keyword_cmd_prefix "
    "keyword_print_hosts keyword_print_all_hosts keyword_print_all_hosts_cmd keyword_print_all_hosts_detail keyword_print_help "
    "quiet yaml_dir yaml_name nvidia_smi use_https ip local_settings_yaml_path".split()
)
"""Names that old config files have and that nothing here needs: ignored, with one notice."""


class Setting(NamedTuple):
    """One row of the table.

    kind        int, float, bool, text, path, port, host, hosts (host:port, several by comma), choice, regex, log,
                tags (key=value, several by comma, or a table)
    low, high   inclusive bounds of int and float; of text the length in characters
    old_names   what the systems before this one called it, read from their config files
    secret      never shown; a config file with it must not be readable by everybody
    """

    name: str
    kind: str
    default: Any
    help: str
    roles: frozenset[str]
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()
    secret: bool = False


def shown(raw: object) -> str:
    """A raw value as an error line shows it: short, ASCII, without control characters."""
    text = ascii(raw)
    return text if len(text) <= 60 else text[:57] + "…"


def _number(row: Setting, raw: object, what: type[int] | type[float]) -> int | float:
    word = "a whole number" if what is int else "a number"
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError(f"is not {word}")
    if isinstance(raw, str) and (len(raw) > 40 or not raw.strip().isascii() or "_" in raw):
        raise ValueError(f"is not {word}")
    try:
        value = what(raw)
        exact = what is float or value == float(raw)
    except (ValueError, OverflowError):
        raise ValueError(f"is not {word}") from None
    if not exact or value != value:
        raise ValueError(f"is not {word}")
    if (row.low is not None and value < row.low) or (row.high is not None and value > row.high):
        raise ValueError(f"is not between {row.low:.12g} and {row.high:.12g}{' ' + row.unit if row.unit else ''}")
    return value


def _int(row: Setting, raw: object) -> int:
    return int(_number(row, raw, int))


def _float(row: Setting, raw: object) -> float:
    return float(_number(row, raw, float))


def _port(row: Setting, raw: object) -> int:
    return int(_number(row._replace(low=0, high=65535), raw, int))


def _bool(_row: Setting, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in {"true", "yes", "on", "1"}:
        return True
    if isinstance(raw, str) and raw.strip().lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError("is neither true nor false")


def _text(row: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("is not text")
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in raw):
        raise ValueError("has control characters or is not UTF-8")
    if row.high is not None and len(raw) > row.high:
        raise ValueError(f"is longer than {row.high:g} characters")
    return raw


def _path(_row: Setting, raw: object) -> Path:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("is not a path")
    if any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in raw) or len(raw) > 4096:
        raise ValueError("is not a usable path")
    return Path(raw)


_HOST = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:]{2,39}")


def _host(_row: Setting, raw: object) -> str:
    if not isinstance(raw, str) or not _HOST.fullmatch(raw.strip().strip("[]")):
        raise ValueError("is not a host name or address")
    return raw.strip().strip("[]")


def _hosts(row: Setting, raw: object) -> tuple[str, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, (list, tuple)):
        raise ValueError("is not a list of host:port")
    if parts in ([], [""]):
        raise ValueError("names no server")
    return tuple(_host_port(row, part) for part in parts)


def _host_port(row: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("is not a list of host:port")
    host, colon, port = raw.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"has {shown(raw)}, which is not host:port")
    plain = _host(row, host)
    return f"[{plain}]:{int(port)}" if ":" in plain else f"{plain}:{int(port)}"


def _choice(row: Setting, raw: object) -> str:
    for choice in row.choices:
        if isinstance(raw, str) and raw.strip().lower() == choice.lower():
            return choice
    raise ValueError(f"is none of {', '.join(row.choices)}")


def _regex(row: Setting, raw: object) -> str:
    text = _text(row, raw)
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return text


_TAG_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_TAG_VALUE_MAX_CHARS = 100
_TAGS_MAX = 32


def _tags(row: Setting, raw: object) -> tuple[tuple[str, str], ...]:
    """Pairs in the order of their keys."""
    if isinstance(raw, str):
        pairs = [part.partition("=")[::2] for part in raw.split(",") if part.strip()]
    elif isinstance(raw, Mapping):
        pairs = [(str(key), str(value)) for key, value in raw.items()]
    elif raw == ():
        pairs = []
    else:
        raise ValueError("is neither key=value,… nor a table")
    found = {key.strip(): _text(row, value.strip()) for key, value in pairs}
    for key, value in found.items():
        if not _TAG_KEY.fullmatch(key):
            raise ValueError(f"has the key {shown(key)}, which is not a letter and letters, digits, '_', '.', '-'")
        if not 0 < len(value) <= _TAG_VALUE_MAX_CHARS:
            raise ValueError(f"has no value for {key}, or one longer than {_TAG_VALUE_MAX_CHARS} characters")
    if len(found) != len(pairs) or len(found) > _TAGS_MAX:
        raise ValueError(f"gives a key twice, or has more than {_TAGS_MAX}")
    return tuple(sorted(found.items()))


_LOG_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What stands before the names of topics, so that several systems can share one Kafka."""


def _log(row: Setting, raw: object) -> str:
    if isinstance(raw, str) and "://" in raw:
        scheme, _, rest = raw.partition("://")
        if scheme != "kafka":
            raise ValueError("is neither a directory nor kafka://host:port[,…]")
        servers, slash, name = rest.partition("/")
        if slash and not _LOG_NAME.fullmatch(name):
            raise ValueError("has a name after the / that is not 1 to 100 letters, digits, '.', '_' or '-'")
        return "kafka://" + ",".join(_hosts(row, servers)) + slash + name
    return str(_path(row, raw))


PARSERS: Final[Mapping[str, Callable[[Setting, object], Any]]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "text": _text,
    "path": _path,
    "port": _port,
    "host": _host,
    "hosts": _hosts,
    "choice": _choice,
    "regex": _regex,
    "log": _log,
    "tags": _tags,
}
"""Parser of each kind."""
