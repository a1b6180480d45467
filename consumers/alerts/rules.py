"""The rules of alerts as a file has them, checked once. [S]

A rules file is TOML: a list of `[[rule]]`, each with

    name         what it is called; unique
    when         a condition of consumers/alerts/conditions.py ("host.down"), or a comparison ("gpu.temp_c > 85")
    clear        comparison that must hold before a raised comparison is over; default: `when` does not hold
    for          how long it must hold before it is raised ("5m"); default 0s
    clear_for    how long it must not hold before it is over; default 0s
    severity     info, warning or critical; default warning
    hosts        pattern of host names (`*`, `?`, `[…]`); default all
    quiet        ["22:00-07:00", …] times of day, in the server's zone, in which nobody is told; the event is in the log all
                 the same, and who has to know is told at the end of it if it is not over by then
    tell         ["webhook", "mail"]: whom to tell; default both, [] = nobody
    message      text when it is raised, cleared_message when it is over ("" = none): `{host}`, `{ip}`, `{gpu}` (GPU 3),
                 `{subject}` (its UUID), `{value}`, `{rule}`, `{severity}`; a bare `{}` is the host
    more         the condition's own parameters, by their names

Rules are code of the operator, the values in messages are hostile text: `safe_text` goes over them.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

from dimint.consumers.alerts.conditions import CONDITIONS, Condition, Parameter, parse_comparison
from dimint.errors import BadTime, SettingsError
from dimint.visible import visible
from dimint.when import parse_span

__all__ = ["CHANNELS", "DEFAULT_RULES", "RULES_MAX", "Quiet", "Rule", "Severity", "parse_rules", "safe_text"]

RULES_MAX: Final = 1000
CHANNELS: Final = ("webhook", "mail")
_TEXT_MAX_CHARS: Final = 1000
_FIELDS: Final = ("host", "ip", "gpu", "subject", "value", "rule", "severity")


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Quiet:
    """A time of day, in seconds since midnight; one that ends before it starts goes over midnight."""

    start_s: int
    end_s: int

    def left_s(self, second_of_day: int) -> int:
        """Seconds until it ends; 0 outside of it."""
        into = (second_of_day - self.start_s) % 86_400
        length = (self.end_s - self.start_s) % 86_400
        return length - into if into < length else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Lengths of time in ns."""

    name: str
    when: Condition
    parameters: Mapping[str, float]
    clear: Condition | None
    for_ns: int
    clear_for_ns: int
    severity: Severity
    hosts: str
    quiet: tuple[Quiet, ...]
    tell: tuple[str, ...]
    message: str
    cleared_message: str

    def is_for(self, host_name: str) -> bool:
        """Whether the rule looks at a host of that name."""
        return fnmatchcase(host_name, self.hosts)

    def quiet_left_s(self, at: datetime) -> float:
        """Seconds until people may be told, from this local time on; 0 = now. Also where clocks are set meanwhile."""
        end = at
        for _ in range(len(self.quiet) + 1):  # one that ends may run into another
            second_of_day = end.hour * 3600 + end.minute * 60 + end.second
            left_s = max((quiet.left_s(second_of_day) for quiet in self.quiet), default=0)
            if not left_s:
                break
            end = _by_the_clock(end, left_s)
        return (end.astimezone(UTC) - at.astimezone(UTC)).total_seconds()

    def text(self, *, raised: bool, host: str, ip: str, subject: str, gpu: str, value: str) -> str:
        """The message with its values filled in; "" if nothing is to be said."""
        values = {"host": host, "host_name": host, "ip": ip, "subject": subject, "gpu": gpu, "value": value}
        shown = {name: safe_text(text) for name, text in values.items()} | {"rule": self.name, "severity": str(self.severity)}
        form = self.message if raised else self.cleared_message
        return form.format(shown["host"], **shown) if form else ""


def _by_the_clock(at: datetime, left_s: int) -> datetime:
    """When a clock on the wall will have gone on by so much; of two such times the first one that is to come."""
    end = (at.replace(tzinfo=None) + timedelta(seconds=left_s)).replace(tzinfo=at.tzinfo, fold=0)
    return end if end.astimezone(UTC) > at.astimezone(UTC) else end.replace(fold=1)


def safe_text(text: str) -> str:
    """Hostile text for a chat or a mail: no control characters, no mark-up or mention of a chat, one line."""
    shown = visible(text)[:_TEXT_MAX_CHARS].replace("`", "'")
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def parse_rules(
    content: Mapping[str, object], where: str, defaults: Mapping[tuple[str, str], float] | None = None
) -> tuple[Rule, ...]:
    """The rules of a file's content; `defaults` are those of parameters (conditions.py) that settings decide.

    Raises SettingsError with a line for every error.
    """
    entries = content.get("rule", [])
    unknown = sorted(set(content) - {"rule"})
    if unknown:
        raise SettingsError(f"{where}: {unknown[0]!r:.80} is not known here; rules stand under [[rule]]")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or len(entries) > RULES_MAX:
        raise SettingsError(f"{where}: rules stand under [[rule]], at most {RULES_MAX} of them")
    rules: list[Rule] = []
    errors: list[str] = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        label = f"rule {name!r:.80}" if isinstance(name, str) else f"rule number {number}"
        try:
            if not isinstance(entry, Mapping):
                raise ValueError("is not a map")
            rule = _rule(entry, defaults or {})
            if any(rule.name == other.name for other in rules):
                raise ValueError("there is another rule of that name")
            rules.append(rule)
        except (ValueError, BadTime) as error:
            errors.append(f"{where}: {label}: {error}")
    if errors:
        raise SettingsError("\n".join(errors))
    return tuple(rules)


# --- one rule -------------------------------------------------------------------------------------------------------
_KNOWN: Final = "name when clear for clear_for severity hosts quiet tell message cleared_message".split()


def _rule(entry: Mapping[str, Any], defaults: Mapping[tuple[str, str], float]) -> Rule:
    name = _text(entry, "name", None)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError("a name is 1 to 64 letters, digits, and . _ -")
    when = _condition(_text(entry, "when", None))
    parameters = {each.name: defaults.get((when.name, each.name), each.default) for each in when.parameters}
    known = [*_KNOWN, *parameters]
    for key in entry:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            raise ValueError(f"{key!r:.80} is not known" + (f"; did you mean {near[0]}?" if near else ""))
    for parameter in when.parameters:
        if parameter.name in entry:
            parameters[parameter.name] = _parameter(parameter, entry[parameter.name])
    clear = parse_comparison(_text(entry, "clear", "")) if "clear" in entry else None
    if clear is not None and clear.number != when.number:
        raise ValueError("clear compares the same number as when")
    tell = entry.get("tell", list(CHANNELS))
    if not isinstance(tell, list) or not all(channel in CHANNELS for channel in tell):
        raise ValueError(f"tell is a list of {', '.join(CHANNELS)}")
    severity = _text(entry, "severity", "warning")
    if severity not in list(Severity):
        raise ValueError(f"severity is {', '.join(Severity)}, not {severity!r:.80}")
    return Rule(
        name=name,
        when=when,
        parameters=parameters,
        clear=clear,
        for_ns=_span(entry, "for"),
        clear_for_ns=_span(entry, "clear_for"),
        severity=Severity(severity),
        hosts=_text(entry, "hosts", "*"),
        quiet=_quiet(entry.get("quiet", [])),
        tell=tuple(dict.fromkeys(tell)),
        message=_form(_text(entry, "message", when.message)),
        cleared_message=_form(_text(entry, "cleared_message", when.cleared_message)),
    )


def _condition(text: str) -> Condition:
    if text in CONDITIONS:
        return CONDITIONS[text]
    if any(sign in text for sign in "<>="):
        return parse_comparison(text)
    near = get_close_matches(text, CONDITIONS, n=1)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(CONDITIONS)} and comparisons such as gpu.temp_c > 85"
    raise ValueError(f"{text!r:.80} is no condition; {known}")


def _text(entry: Mapping[str, Any], key: str, default: str | None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key} is missing" if value is None else f"{key} is a text")
    if len(value) > _TEXT_MAX_CHARS:
        raise ValueError(f"{key} is longer than {_TEXT_MAX_CHARS} characters")
    return value


def _span(entry: Mapping[str, Any], key: str) -> int:
    text = _text(entry, key, "0s")
    return 0 if text == "0s" else parse_span(text)


def _parameter(parameter: Parameter, value: object) -> float:
    if parameter.is_span:
        if not isinstance(value, str):
            raise ValueError(f"{parameter.name} is a length of time such as 10m")
        return parse_span(value) / 1e9
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e15:
        raise ValueError(f"{parameter.name} is a number, 0 or more")
    return float(value)


def _quiet(value: object) -> tuple[Quiet, ...]:
    found = []
    for text in value if isinstance(value, list) else [value]:
        match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", text, re.ASCII) if isinstance(text, str) else None
        numbers = [int(part) for part in match.groups()] if match else []
        if not numbers or numbers[0] > 23 or numbers[1] > 59 or numbers[2] > 24 or numbers[3] > 59 or numbers[:2] == numbers[2:]:
            raise ValueError(f"quiet is a list of times of day such as 22:00-07:00, not {text!r:.80}")
        found.append(Quiet(numbers[0] * 3600 + numbers[1] * 60, (numbers[2] * 3600 + numbers[3] * 60) % 86_400))
    return tuple(found)


def _form(text: str) -> str:
    try:
        for _, field, spec, conversion in string.Formatter().parse(text):
            if field not in (None, "", "host_name", *_FIELDS) or spec or conversion:
                raise ValueError(f"{{{field}}}")
        text.format("", **dict.fromkeys((*_FIELDS, "host_name"), ""))
    except (ValueError, IndexError, KeyError) as error:
        names = ", ".join(f"{{{field}}}" for field in _FIELDS)
        raise ValueError(f"a message has {names} or {{}} for the host, not {str(error)[:80]}") from None
    return text


DEFAULT_RULES: Final[tuple[dict[str, object], ...]] = (
    {"name": "uplink", "when": "host.registered", "severity": "info"},
    {"name": "down", "when": "host.down", "severity": "critical"},
    {"name": "driver", "when": "host.driver_mismatch", "for": "1m"},
    {"name": "spool", "when": "host.spool_filling"},
    {"name": "gpu-gone", "when": "gpu.gone", "severity": "critical", "for": "15s"},
    {"name": "xid", "when": "gpu.xid"},
    {"name": "hot", "when": "gpu.hot", "for": "2m", "clear_for": "5m"},
    {"name": "idle-while-held", "when": "gpu.idle_held", "for": "30m", "clear_for": "5m", "severity": "info", "tell": []},
    {"name": "held-without-process", "when": "gpu.held_without_process", "for": "15m", "severity": "info"},
)
"""The rules where no file is given."""
