"""The filter language of pages, terminal views and JSON: which hosts, and which of their GPUs, to show. [S]

::

    gpu.util<5 and held>30m          user==alice or user==bob        tag:lab1 and not state==down
    gpu.name~a100 and gpu.free       mem>=90                         sim-0 alice

    filter      terms with `and`, `or`, `not` and parentheses; side by side they must all hold; `and` binds closer than `or`
    term        FIELD OP VALUE · a yes-or-no field alone · tag:TEXT · a word, found in the names of host, users, programs, GPUs
    OP          ==  =  !=  <  <=  >  >=  and, for text, ~ (contains) and !~
    VALUE       a number (a % or °C, W, GiB after it is passed over) · a time such as 30s, 30m, 2h, 1d · text, with quotes if it
                has spaces or signs in it; case does not matter, * stands for any text

A term about GPUs is asked of each GPU, and all such terms of a filter are asked of the same GPU. What is not known
(a GPU that does not tell its temperature) is neither true nor false, and does not match, also after `not`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple, TypeAlias

from dimint.errors import BadQuery, BadTime
from dimint.limits import FILTER_MAX_CHARS
from dimint.webapp.fields import FIELDS, SHORT, Field, Subject, Values, field_name, subjects
from dimint.webapp.models import Gpu, Host, Status
from dimint.when import parse_span

__all__ = ["Filter", "Test", "parse_filter"]

_DEPTH_MAX: Final = 32


Test: TypeAlias = Callable[[Subject], bool | None]


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. An empty text matches everything."""

    text: str
    test: Test | None
    about_gpus: bool = False

    def matches(self, host: Host, now_ns: int) -> bool:
        """Whether the host is shown: the filter holds for it, or for one of its GPUs."""
        if self.test is None:
            return True
        test = self.test
        return any(test(subject) is True for subject in subjects(host, now_ns))

    def matches_gpu(self, host: Host, gpu: Gpu, now_ns: int) -> bool:
        """Whether it holds for this GPU."""
        return self.test is None or self.test(Subject(host, gpu, now_ns)) is True


def parse_filter(text: str) -> Filter:
    """The filter that a text asks for. Raises BadQuery, in one line that says what is wrong and what could stand there."""
    plain = text.strip()
    if len(plain) > FILTER_MAX_CHARS:
        raise BadQuery(f"the filter is longer than {FILTER_MAX_CHARS} characters")
    if not plain:
        return Filter("", None)
    parser = _Parser(_tokens(plain))
    test = parser.either()
    if parser.here().kind != "end":
        raise BadQuery(f"{parser.here().shown} has no ( before it")
    return Filter(plain, test, parser.about_gpus)


# --- words -----------------------------------------------------------------------------------------------------------
class _Token(NamedTuple):
    kind: str  # open, close, op, word, text (in quotes) or end
    text: str

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text[:40])


_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<op>==|!=|<=|>=|!~|[=<>~:])|"(?P<text>[^"]*)"|'(?P<text2>[^']*)'"""
    r"""|(?P<word>[^\s()<>=!~:"']+|[!'"]))"""
)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text) and (match := _TOKEN.match(text, at)):
        at = match.end()
        kind = match.lastgroup or "word"
        found.append(_Token("text" if kind == "text2" else kind, match[kind]))
    return [*found, _Token("end", "")]


class _Parser:
    """Recursive descent over the tokens; `about_gpus` is whether a term about GPUs was among them."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0
        self.about_gpus = False

    def here(self) -> _Token:
        return self._tokens[self._at]

    def either(self) -> Test:
        """Terms joined by `or`."""
        tests = [self._both()]
        while self._takes("or", "||"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda subject: _any(tests, subject)

    def _both(self) -> Test:
        tests = [self._one()]
        while True:
            joined = self._takes("and", "&&")
            if not joined and (self.here().kind in ("end", "close") or self._is("or", "||")):
                break
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda subject: _all(tests, subject)

    def _one(self) -> Test:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise BadQuery(f"the filter is nested deeper than {_DEPTH_MAX}")
        try:
            if self._takes("not", "!"):
                test = self._one()
                return lambda subject: None if (found := test(subject)) is None else not found
            if self.here().kind == "open":
                self._at += 1
                test = self.either()
                if self.here().kind != "close":
                    raise BadQuery("a ( has no ) after it")
                self._at += 1
                return test
            return self._term()
        finally:
            self._depth -= 1

    def _term(self) -> Test:
        token = self.here()
        if token.kind not in ("word", "text") or self._is("and", "or", "&&", "||"):
            raise BadQuery(f"a term such as gpu.util<5 is missing before {token.shown}")
        self._at += 1
        following = self.here()
        name = token.text.casefold()
        if token.kind == "word" and following.kind == "op":
            self._at += 1
            return self._comparison(field_name(name), following.text)
        field = FIELDS.get(SHORT.get(name, name))
        if token.kind == "word" and field is not None and field.kind == "flag":
            self.about_gpus |= field.about_gpu
            read = field.read
            return lambda subject: None if (value := read(subject)) is None else bool(value)
        return _word(name)

    def _comparison(self, name: str, op: str) -> Test:
        field, token = FIELDS[name], self.here()
        if token.kind not in ("word", "text"):
            raise BadQuery(f"a value is missing after {name}{op}")
        self._at += 1
        if name == "tag" and self.here() == _Token("op", "=") and self._tokens[self._at + 1].kind in ("word", "text"):
            token = _Token("text", f"{token.text}={self._tokens[self._at + 1].text}")  # tag:rack=r7
            self._at += 2
        self.about_gpus |= field.about_gpu
        if field.kind == "flag":
            raise BadQuery(f"{name} is yes or no: write it alone, or after not")
        if field.kind == "text":
            return _text_test(name, field, op, token.text)
        wanted = _seconds(name, token.text) if field.kind == "time" else _number(name, token.text)
        if op in (":", "~", "!~"):
            raise BadQuery(f"{name} is a number: compare it with ==, !=, <, <=, > or >=, not {op}")
        return _number_test(field.read, op, wanted)

    def _is(self, *words: str) -> bool:
        return self.here().kind in ("word", "op") and self.here().text.casefold() in words

    def _takes(self, *words: str) -> bool:
        found = self._is(*words)
        self._at += found
        return found


# --- tests -----------------------------------------------------------------------------------------------------------
def _any(tests: Sequence[Test], subject: Subject) -> bool | None:
    """Kleene's or: true if one is true, else not known if one is not known."""
    known = True
    for test in tests:
        found = test(subject)
        if found:
            return True
        known &= found is not None
    return False if known else None


def _all(tests: Sequence[Test], subject: Subject) -> bool | None:
    known = True
    for test in tests:
        found = test(subject)
        if found is False:
            return False
        known &= found is not None
    return True if known else None


def _number(name: str, text: str) -> float:
    match = re.fullmatch(r"(-?\d{1,12}(?:\.\d{1,6})?)\s*(?:%|°?c|w|gib|gb|g|mhz)?", text.casefold())
    if match is None:
        raise BadQuery(f"{name} is compared with a number, not with {text[:40]!r}")
    return float(match[1])


def _seconds(name: str, text: str) -> float:
    if re.fullmatch(r"0+[smhdw]?", text):
        return 0.0
    try:
        return parse_span(text) / 1e9
    except BadTime:
        raise BadQuery(f"{name} is compared with a time such as 30s, 30m, 2h or 1d, not with {text[:40]!r}") from None


_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _number_test(read: Callable[[Subject], Values], op: str, wanted: float) -> Test:
    compare = _COMPARE[op]

    def test(subject: Subject) -> bool | None:
        value = read(subject)
        return compare(float(value), wanted) if isinstance(value, int | float) else None

    return test


def _text_test(name: str, field: Field, op: str, text: str) -> Test:
    wanted = text.casefold()
    if op in ("<", "<=", ">", ">="):
        raise BadQuery(f"{name} is text: compare it with ==, !=, ~ (contains) or !~, not {op}")
    if op in ("~", "!~"):
        match: Callable[[str], bool] = lambda value: wanted in value  # noqa: E731 - two forms of one test
    elif "*" in wanted or "?" in wanted:
        match = lambda value: fnmatchcase(value, wanted.replace("[", "[[]"))  # noqa: E731
    else:
        match = wanted.__eq__
    negative = op.startswith("!")

    def test(subject: Subject) -> bool | None:
        values = field.read(subject)
        if not isinstance(values, Sequence):
            return None
        return any(match(str(value).casefold()) for value in values) is not negative

    return test


def _word(word: str) -> Test:
    """A plain word: somewhere in the names of the host, or of anything on this GPU."""

    def test(subject: Subject) -> bool:
        host, gpu = subject.host, subject.gpu
        texts = [host.name, host.ip, str(host.status), "simulated" if host.simulated else "", *(text for _, text in host.tags)]
        if gpu is not None and host.status is Status.RUNNING:
            texts += [gpu.name or "", gpu.state if gpu.state != "ok" else ""]
            for process in gpu.processes:
                texts += [process.user or "", process.name or "", process.command or ""]
        return any(word in text.casefold() for text in texts)

    return test
