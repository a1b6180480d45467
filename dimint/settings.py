"""Every setting of every process in one table, and the frozen objects that processes get. [S]

The table is the only place where a setting's name, type, default, range and help stand: flags, environment names, the
config file and docs/operations.md follow it. Raw values (text from flags and environment, JSON or TOML values from a
file) go through `parse`, then `build` makes one typed object per process. Errors are collected: one line each.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from dimint.errors import SettingsError
from dimint.genesis import GenesisSettings
from dimint.limits import HASH_RANGE_MAX, HOST_NAME_MAX_CHARS, PARTITIONS_MAX
from dimint.setting_kinds import IGNORED_NAMES, PARSERS, Setting, shown
from dimint.settings_keep import KEEP_SETTINGS
from dimint.settings_thresholds import THRESHOLD_SETTINGS, Thresholds

__all__ = [
    "IGNORED_NAMES",
    "ROLES",
    "SETTINGS",
    "AgentSettings",
    "AlertsSettings",
    "AnySettings",
    "CommonSettings",
    "ConsumerSettings",
    "NodeSettings",
    "OverlordSettings",
    "Setting",
    "ToolSettings",
    "UpSettings",
    "WebSettings",
    "build",
    "canonical_name",
    "is_loopback",
    "nearest_name",
    "parse",
    "role_of",
    "settings_of",
]

ROLES: Final = ("overlord", "node", "consumer", "web", "alerts", "agent", "up", "tool")
"""Processes that have settings. `tool` is every command that only looks (list, registry, rebuild)."""

_ALL: Final = frozenset(ROLES)
_DOORS: Final = frozenset({"overlord", "node", "up"})
_LOG: Final = frozenset({"overlord", "up"})


def _row(name: str, kind: str, default: Any, roles: Iterable[str], help_: str, **more: Any) -> Setting:
    return Setting(name, kind, default, help_, frozenset(roles), **more)


SETTINGS: Final[tuple[Setting, ...]] = (
    # where things are
    _row("data_dir", "path", None, _ALL, "Directory of this machine's files (docs/operations.md names them)."),
    _row("log", "log", None, _ALL, "The event log if it is not in the data directory: another directory, or kafka://host:port[,…]."),
    _row("archive_dir", "path", None, _ALL, "Folder of what leaves the log; default: archives in the data directory."),
    _row("kafka_tls", "bool", False, _ALL, "Encrypt the way to Kafka; certificate and host name are checked."),
    _row("kafka_ca", "path", None, _ALL, "PEM file of who signed the brokers' certificates; default: whom the system trusts."),
    _row("kafka_certificate", "path", None, _ALL, "PEM file of the own certificate, if the brokers ask for one."),
    _row("kafka_key", "path", None, _ALL, "PEM file of that certificate's key."),
    _row("kafka_auth", "text", "", _ALL, "scram-sha-512:USER:PASSWORD, scram-sha-256:… or plain:…; empty = no user.",
         high=1000, secret=True),
    _row("zookeeper_hosts", "hosts", (), _ALL, "ZooKeeper servers, host:port[,…]; empty = registry in the log's directory."),
    _row("zookeeper_root", "text", "/dimint", _ALL, "Node of ZooKeeper that all of this stands under; one a system.", high=200),
    _row("zookeeper_session", "float", 6.0, _ALL, "Silence after which ZooKeeper takes a process for dead.",
         unit="s", low=1, high=60),
    _row("zookeeper_tls", "bool", False, _ALL, "Encrypt the way to ZooKeeper; certificate and host name are checked."),
    _row("zookeeper_ca", "path", None, _ALL, "PEM file of who signed ZooKeeper's certificate; default: whom the system trusts."),
    _row("zookeeper_certificate", "path", None, _ALL, "PEM file of the own certificate, if ZooKeeper asks for one."),
    _row("zookeeper_key", "path", None, _ALL, "PEM file of that certificate's key."),
    _row("zookeeper_auth", "text", "", _ALL, "digest:USER:PASSWORD or sasl:USER:PASSWORD; empty = no user.",
         high=1000, secret=True),
    # the key-value store
    _row("port_for_client", "port", 5556, _LOG, "Port of the overlord's door for clients; 0 = any free one."),
    _row("port_for_node", "port", 5557, _LOG, "Port of the overlord's door for nodes; 0 = any free one."),
    _row("hash_range", "int", None, _ALL, "Hash slots that the log must have; a new one gets 10000.", low=1, high=HASH_RANGE_MAX),
    _row("partitions", "int", None, _ALL, "Partitions that the log must have; a new one gets 4, or 16 on Kafka.",
         low=1, high=PARTITIONS_MAX),
    _row("max_slave_count", "int", 2, _LOG, "Most slaves of one master node.", low=0, high=100),
    _row("heartbeat", "float", 2.0, _DOORS, "Time between two heartbeat events.", unit="s", low=0.1, high=3600),
    _row("bind", "host", "127.0.0.1", _DOORS, "Address that the ZeroMQ doors listen on."),
    _row("advertise", "host", None, _DOORS, "Host that others reach this machine under; default: the bind address."),
    _row("key_file", "path", None, _ALL, "Key of all ZeroMQ doors (dimint key create): encrypted, for its holders only."),
    _row("allow_plain", "bool", False, _DOORS, "Allow doors off loopback without encryption, for old clients."),
    _row("node_name", "text", "", {"node"}, "Name of the node's store; empty = the first free one.", high=64),
    _row("port_for_reads", "port", 0, {"node"}, "Port of the node's own door for clients; 0 = any free one."),
    _row("overlord_host", "host", None, {"node"}, "Host of the overlord's node door, in old node configs.", old_names=("host",)),
    _row("overlord_port", "port", 5557, {"node"}, "Port of the overlord's node door, in old node configs.", old_names=("port",)),
    # the agent
    _row("interval", "float", 5.0, {"agent", "up"}, "Time between two samples of a host.", unit="s", low=0.1, high=3600),
    _row("to", "text", "", {"agent"}, "Publish to an overlord, tcp://host:port, instead of straight to the log.", high=300),
    _row("host_name", "text", "", {"agent", "up"}, "Name of this host; empty = what the system says.", high=HOST_NAME_MAX_CHARS),
    _row("tags", "tags", (), {"agent", "up"}, "Tags of this host, for groups on the pages: key=value,… (a table in TOML)."),
    _row("command_lines", "choice", "redacted", {"agent", "up"}, "What is published of the command lines of GPU processes.",
         choices=("redacted", "none", "whole")),
    _row("hosts", "int", 0, {"agent", "up"}, "Number of simulated GPU hosts; needs simulate.", low=0, high=100_000),
    _row("simulate", "bool", False, {"agent", "up"}, "Publish simulated hosts, shown everywhere as simulated."),
    # the pages
    _row("http_port", "port", 8080, {"web", "up"}, "Port of the status pages.", old_names=("port_num",)),
    _row("http_bind", "host", "127.0.0.1", {"web", "up"}, "Address that the status pages listen on.", old_names=("bind_host",)),
    _row("http_names", "text", "", {"web", "up"}, "More names, by comma, under which browsers may reach the pages.",
         high=2000),
    _row("token", "text", "", {"web", "up"}, "Token that senders must give; empty = off.", high=1000, secret=True),
    _row("network_filter", "regex", "", {"web", "up"}, "Regular expression that a reader's address must match; empty = all.",
         high=1000, old_names=("valid_network",)),
    _row("page_size", "int", 8, {"web", "up"}, "Hosts on one page.", low=1, high=1000, old_names=("page_per_host_num",)),
    _row("order", "choice", "name", {"web", "up"}, "Order of the hosts.", choices=("name", "address"), old_names=("sort_by",)),
    _row("term_width", "int", 80, {"web", "up"}, "Width of the terminal views.", unit="columns", low=80, high=1000),
    _row("date_order", "choice", "YMD", {"web", "up"}, "Order of day, month and year on the pages.",
         choices=("YMD", "MDY", "DMY"), old_names=("timestamp_format",)),
    _row("down_threshold", "float", 60.0, {"web", "consumer", "alerts", "up"}, "Silence after which a host counts as down.",
         unit="s", low=0.1, high=30 * 86400, old_names=("down_th",)),
    _row("save_interval", "float", 0.0, {"web", "up"}, "Shortest time between two entries that /states/ shows; 0 = all.",
         unit="s", low=0, high=86400),
    _row("page_title", "text", "DiMint", {"web", "up"}, "Title of the pages.", high=200),
    _row("page_description", "text", "", {"web", "up"}, "A line under the title.", high=2000),
    _row("ip2name", "path", None, {"web", "up"}, "JSON file that maps addresses to names."),
    *THRESHOLD_SETTINGS,
    # alerts
    _row("alert_rules", "path", None, {"alerts", "up"}, "TOML file of alert rules (docs/alerts.md); default: the built-in ones."),
    _row("webhook", "text", "", {"alerts", "up"}, "Address that alerts are posted to as {\"text\": …}; empty = none.",
         high=2000, secret=True, old_names=("slack_webhook",)),
    _row("mail_server", "text", "", {"alerts", "up"}, "Mail server for alerts, host[:port]; empty = none.", high=300),
    _row("mail_from", "text", "", {"alerts", "up"}, "Sender of the mails.", high=300),
    _row("mail_to", "text", "", {"alerts", "up"}, "Receivers of the mails, by comma.", high=2000),
    _row("mail_auth", "text", "", {"alerts", "up"}, "USER:PASSWORD at the mail server; empty = no user.", high=1000, secret=True),
    _row("message_uplink", "text", "", {"alerts", "up"}, "Text when a host registers ({} = its name); empty = built in.",
         high=1000, old_names=("register_uplink_msg",)),
    _row("message_up", "text", "", {"alerts", "up"}, "Text when a host is back; empty = built in.",
         high=1000, old_names=("re_uplink_msg",)),
    _row("message_down", "text", "", {"alerts", "up"}, "Text when a host is down ({host_name}, {lost_th}); empty = built in.",
         high=1000, old_names=("host_down_msg",)),
    *KEEP_SETTINGS,
    # up
    _row("nodes", "int", 1, {"up"}, "Number of nodes to run.", low=1, high=64),
)  # fmt: skip

_BY_NAME: Final = {row.name: row for row in SETTINGS}
_BY_OLD_NAME: Final = {old: row.name for row in SETTINGS for old in row.old_names}
_OLD_VALUES: Final = {("order", "ip"): "address"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """What every process gets. Paths are absolute. `given` names the settings that somebody set (not the defaults)."""

    data_dir: Path
    log: str
    """Directory of the embedded log, or kafka://…"""
    zookeeper_hosts: tuple[str, ...]
    hash_range: int | None
    partitions: int | None
    given: frozenset[str]
    archive_dir: Path | None = _BY_NAME["archive_dir"].default
    key_file: Path | None = _BY_NAME["key_file"].default
    kafka_tls: bool = _BY_NAME["kafka_tls"].default
    kafka_ca: Path | None = _BY_NAME["kafka_ca"].default
    kafka_certificate: Path | None = _BY_NAME["kafka_certificate"].default
    kafka_key: Path | None = _BY_NAME["kafka_key"].default
    kafka_auth: str = _BY_NAME["kafka_auth"].default
    zookeeper_root: str = _BY_NAME["zookeeper_root"].default
    zookeeper_session: float = _BY_NAME["zookeeper_session"].default
    """Seconds."""
    zookeeper_tls: bool = _BY_NAME["zookeeper_tls"].default
    zookeeper_ca: Path | None = _BY_NAME["zookeeper_ca"].default
    zookeeper_certificate: Path | None = _BY_NAME["zookeeper_certificate"].default
    zookeeper_key: Path | None = _BY_NAME["zookeeper_key"].default
    zookeeper_auth: str = _BY_NAME["zookeeper_auth"].default

    @property
    def genesis(self) -> GenesisSettings:
        """What a new log gets and an old one must have; None where nobody said."""
        return GenesisSettings(hash_range=self.hash_range, kv_partitions=self.partitions)

    @property
    def archives(self) -> Path:
        """Where archives of what leaves the log are."""
        return self.archive_dir or self.data_dir / "archives"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSettings(CommonSettings):
    """A command that only looks at log and registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlordSettings(CommonSettings):
    port_for_client: int
    port_for_node: int
    max_slave_count: int
    heartbeat: float
    """Seconds."""
    bind: str
    advertise: str | None
    allow_plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings(CommonSettings):
    node_name: str
    port_for_reads: int
    heartbeat: float
    bind: str
    advertise: str | None
    allow_plain: bool
    overlord_host: str | None
    overlord_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings(CommonSettings):
    down_threshold: float
    """Seconds."""
    keep_samples: float
    """Days, as the next four; 0 is for ever."""
    keep_minutes: float
    keep_hours: float
    keep_status_log: float
    keep_kv_log: float
    keep_snapshots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsSettings(Thresholds, CommonSettings):
    down_threshold: float
    """Seconds."""
    alert_rules: Path | None
    webhook: str
    mail_server: str
    mail_from: str
    mail_to: str
    mail_auth: str
    message_uplink: str
    message_up: str
    message_down: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings(Thresholds, CommonSettings):
    http_port: int
    http_bind: str
    http_names: str
    token: str
    network_filter: str
    page_size: int
    order: str
    term_width: int
    date_order: str
    down_threshold: float
    save_interval: float
    page_title: str
    page_description: str
    ip2name: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings(CommonSettings):
    interval: float
    """Seconds."""
    to: str
    host_name: str
    tags: tuple[tuple[str, str], ...]
    command_lines: str
    hosts: int
    simulate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings(CommonSettings):
    """Of the whole program: what `up` itself decides by. What its children get goes to them as flags."""

    port_for_client: int
    port_for_node: int
    http_port: int
    bind: str
    advertise: str | None
    allow_plain: bool
    http_bind: str
    interval: float
    host_name: str
    nodes: int
    hosts: int
    simulate: bool


AnySettings: TypeAlias = (
    ToolSettings | OverlordSettings | NodeSettings | ConsumerSettings | AlertsSettings | WebSettings | AgentSettings | UpSettings
)
Settings = TypeVar("Settings", bound=CommonSettings)


def role_of(cls: type[CommonSettings]) -> str:
    """The role that a settings class is for."""
    return cls.__name__.removesuffix("Settings").lower()


def settings_of(role: str) -> tuple[Setting, ...]:
    """The rows that a role has, in table order."""
    return tuple(row for row in SETTINGS if role in row.roles)


def canonical_name(name: str) -> str | None:
    """The table's name for a name as somebody wrote it (dashes, capitals and old names allowed); None if there is none."""
    plain = name.replace("-", "_").lower()
    return plain if plain in _BY_NAME else _BY_OLD_NAME.get(plain)


def nearest_name(name: str, among: Iterable[str] | None = None) -> str | None:
    """The known name that is most like `name`, if any is."""
    known = list(_BY_NAME) if among is None else list(among)
    found = get_close_matches(name.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    return found[0] if found else None


def is_loopback(host: str) -> bool:
    """Whether a bind address is reached from this machine only."""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def parse(name: str, raw: object) -> Any:
    """The typed value of one raw value of the setting `name`. Raises SettingsError, one line, without the origin."""
    row = _BY_NAME[name]
    value: object = _OLD_VALUES.get((name, raw), raw) if isinstance(raw, str) else raw
    try:
        return PARSERS[row.kind](row, value)
    except ValueError as error:
        what = "the value" if row.secret else shown(raw)
        raise SettingsError(f"{name}: {what} {error}") from None


def build(cls: type[Settings], values: Mapping[str, Any], given: Iterable[str]) -> Settings:
    """The settings object of one process from parsed values (all of its names, defaults filled in) and what was set.

    Raises SettingsError where values do not fit each other.
    """
    names = {field.name for field in fields(cls)} - {"given"}
    settings = cls(**{name: values[name] for name in names}, given=frozenset(given))
    errors = [line for rule in _RULES if (line := rule(settings)) is not None]
    if errors:
        raise SettingsError("\n".join(errors))
    return settings


# --- rules over several settings: an error line, or None ------------------------------------------------------------
def _plain_doors(settings: CommonSettings) -> str | None:
    if not isinstance(settings, (OverlordSettings, NodeSettings, UpSettings)):
        return None
    if settings.key_file is not None or settings.allow_plain or is_loopback(settings.bind):
        return None
    return f"bind: {settings.bind} is reached from other machines; give a --key_file, or --allow_plain for all"


def _different_ports(settings: CommonSettings) -> str | None:
    ports: list[tuple[str, int]] = []
    if isinstance(settings, (OverlordSettings, UpSettings)):
        ports = [("port_for_client", settings.port_for_client), ("port_for_node", settings.port_for_node)]
    if isinstance(settings, UpSettings):
        ports.append(("http_port", settings.http_port))
    for at, (name, port) in enumerate(ports):
        for other, same in ports[:at]:
            if port and port == same:
                return f"{name}: {port} is already {other}"
    return None


def _simulation(settings: CommonSettings) -> str | None:
    if not isinstance(settings, (AgentSettings, UpSettings)):
        return None
    if settings.hosts and not settings.simulate:
        return f"hosts: {settings.hosts} simulated hosts need --simulate"
    return None


def _alert_ways(settings: CommonSettings) -> str | None:
    if not isinstance(settings, AlertsSettings):
        return None
    if settings.webhook and not re.match(r"https?://[^\s/]", settings.webhook):
        return "webhook: is not an address that begins with http:// or https://"
    if settings.mail_server and not (settings.mail_from and settings.mail_to):
        return "mail_server: mails need --mail_from and --mail_to too"
    if settings.mail_auth and ":" not in settings.mail_auth:
        return "mail_auth: is not USER:PASSWORD"
    return None


def _publish_address(settings: CommonSettings) -> str | None:
    if not isinstance(settings, AgentSettings) or not settings.to:
        return None
    if re.fullmatch(r"tcp://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):\d{1,5}", settings.to):
        return None
    return f"to: {shown(settings.to)} is not tcp://host:port"


_RULES: Final = (_plain_doors, _different_ports, _simulation, _alert_ways, _publish_address)
