"""What `dimint top` shows and what its keys do: a state, and the screen that it makes of an answer. [S]

The server makes the lines (`?term=true&format=json`), each with the host that it is about; here is only which of them are
in sight, which one is chosen, and what to ask for next.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from dimint.visible import visible

__all__ = ["HELP", "Answer", "State", "address", "press", "screen"]

VIEWS: Final = ("auto", "cards", "rows", "grid", "tiles", "gpus")
SORTS: Final = ("", "-gpu.util", "-gpu.mem", "-gpu.temp", "-gpu.free", "-held", "-cpu", "user")
HELP: Final = (
    "q         quit                     Enter, →  the chosen host        Esc, ←  back to all hosts",
    "↑ ↓ j k   choose a line            PgUp PgDn Home End  further",
    "v         next view: auto, cards, rows, grid, tiles, every GPU",
    "s S       next, previous order     r         the other way round",
    "/         filter, as in gpu.util<5 and held>30m; Enter takes it, Esc leaves it",
    "[ ]       10 minutes back, forward { }       1 hour back, forward   l       live",
    "space     hold and go on           ?         this help",
)
_STEPS: Final = {"[": -600, "]": 600, "{": -3600, "}": 3600}
_FILTER_MAX: Final = 1000


class Answer(NamedTuple):
    """Lines with their hosts (None for headings), or why there are none."""

    lines: tuple[tuple[str | None, str], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """`back_s` is how far in the past it looks, 0 = live. `host` is the one that is shown, None for all.

    `typing` is the filter while it is being typed. `chosen` counts lines of the answer.
    """

    view: str = "auto"
    sort: str = ""
    filter: str = ""
    typing: str | None = None
    host: str | None = None
    at_s: int | None = None
    held: bool = False
    helping: bool = False
    chosen: int = 0
    first: int = 0
    done: bool = False


def address(state: State, columns: int) -> str:
    """Path and query to ask the server for."""
    words = {"term": "true", "format": "json", "w": str(columns)}
    if state.at_s is not None:
        words["at"] = f"@{state.at_s}"
    if state.host is not None:
        return f"/hosts/{quote(state.host, safe='', errors='backslashreplace')}/?{urlencode(words)}"
    words |= {"sort": state.sort, "filter": state.filter}
    if state.view != "gpus":
        words["view"] = state.view
    return f"/?{urlencode({name: word for name, word in words.items() if word}, errors='backslashreplace')}"


def press(state: State, key: str, answer: Answer, rows: int, now_s: int) -> State:
    """The state after a key: a character, or a name such as `up`. `rows` is how many lines of the answer are in sight."""
    if state.typing is not None:
        return _type(state, state.typing, key)
    if state.helping:
        return replace(state, helping=False, done=key in ("q", "end-of-input"))
    last = max(0, len(answer.lines) - 1)
    moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -rows, "page-down": rows, "home": -last, "end": last}
    if key in moves:
        return replace(state, chosen=min(last, max(0, state.chosen + moves[key])))
    if key in _STEPS:
        at = (now_s if state.at_s is None else state.at_s) + _STEPS[key]
        return replace(state, at_s=None if at >= now_s else at)
    match key:
        case "q" | "end-of-input" | "interrupt":
            return replace(state, done=True)
        case "enter" | "right" if state.host is None and state.chosen <= last and answer.lines:
            host = answer.lines[state.chosen][0]
            return state if host is None else replace(state, host=host, chosen=0, first=0)
        case "escape" | "left" | "backspace" if state.host is not None:
            return replace(state, host=None, chosen=0, first=0)
        case "escape" if state.filter:
            return replace(state, filter="", chosen=0)
        case "v":
            return replace(state, view=VIEWS[(VIEWS.index(state.view) + 1) % len(VIEWS)], chosen=0, first=0)
        case "s" | "S":
            place = SORTS.index(state.sort) if state.sort in SORTS else 0
            return replace(state, sort=SORTS[(place + (1 if key == "s" else -1)) % len(SORTS)])
        case "r" if state.sort:
            return replace(state, sort=state.sort[1:] if state.sort.startswith("-") else f"-{state.sort}")
        case "/":
            return replace(state, typing=state.filter)
        case "l":
            return replace(state, at_s=None)
        case " ":
            return replace(state, held=not state.held)
        case "?":
            return replace(state, helping=True)
    return state


def _type(state: State, typing: str, key: str) -> State:
    match key:
        case "enter":
            return replace(state, filter=typing.strip(), typing=None, host=None, chosen=0, first=0)
        case "escape" | "interrupt":
            return replace(state, typing=None)
        case "end-of-input":
            return replace(state, done=True)
        case "backspace":
            return replace(state, typing=typing[:-1])
    return replace(state, typing=(typing + key)[:_FILTER_MAX]) if len(key) == 1 and key.isprintable() else state


def screen(state: State, answer: Answer, columns: int, rows: int, when: str) -> tuple[State, list[str]]:
    """The state, scrolled so that the chosen line is in sight, and the plain lines of the screen with marks for the driver.

    The first character of each line says how it is shown: ` ` plain, `>` chosen, `=` a bar, `!` a problem.
    """
    inside = max(1, rows - 2)
    first = min(state.first, state.chosen)
    first = max(first, state.chosen - inside + 1, 0)
    state = replace(state, first=first)
    what = f"host {visible(state.host)}" if state.host is not None else f"view {state.view}"
    parts = [
        f"dimint top · {what}",
        f"order {state.sort}" if state.sort else "",
        f"filter {state.filter}" if state.filter else "",
    ]
    bar = " · ".join(part for part in [*parts, when, "held" if state.held else ""] if part)
    lines = [f"={_fit(bar, columns)}"]
    if state.helping:
        body = [f" {line}" for line in HELP]
    elif answer.problem:
        body = [f"!{answer.problem}"]
    else:
        seen = answer.lines[first : first + inside]
        body = [f"{'>' if first + at == state.chosen else ' '}{text}" for at, (_, text) in enumerate(seen)]
    lines += [line[0] + line[1:][:columns] for line in body[:inside]]
    lines += [" "] * (rows - 1 - len(lines))
    foot = "? help  q quit  / filter  s order  v view  Enter host  [ ] time"
    lines.append(f"={_fit(f'filter: {state.typing}▏' if state.typing is not None else foot, columns)}")
    return state, lines


def _fit(text: str, columns: int) -> str:
    return text[:columns].ljust(columns)
