"""`dimint top` without a terminal: keys out of bytes, what they do, what is asked for and shown."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.top.keys import read_keys
from dimint.top.state import Answer, State, address, press, screen

NOW = 1_700_000_000
ANSWER = Answer(((None, "heading"), ("gpu-1", "● gpu-1"), ("gpu/2", "● gpu/2"), (None, "3 hosts")))


def pressed(state: State, *keys: str) -> State:
    for key in keys:
        state = press(state, key, ANSWER, 10, NOW)
    return state


def test_keys_of_bytes() -> None:
    """Letters, arrows in both modes, pages, a lone escape, UTF-8; unknown sequences are passed over."""
    assert read_keys(b"a\x1b[A\x1bOB\x1b[5~\x1b[99~\x1b[1;5Cq\r\x7f\xc3\xa9\x1b") == [
        "a", "up", "down", "page-up", "q", "enter", "backspace", "é", "escape",
    ]  # fmt: skip


@given(st.binary(max_size=40))
def test_any_bytes_are_keys(data: bytes) -> None:
    """Nothing that a terminal sends breaks it."""
    state = State()
    for key in read_keys(data):
        state = press(state, key, ANSWER, 5, NOW)
        state, lines = screen(state, ANSWER, 30, 6, "live")
        assert len(lines) == 6
        assert all(len(line) <= 31 for line in lines)
        assert address(state, 30).startswith("/")


def test_choosing_a_host_and_coming_back() -> None:
    """Arrows choose, Enter opens the line's host, a heading opens none, Escape goes back."""
    assert pressed(State(), "enter").host is None
    chosen = pressed(State(), "down", "down", "enter")
    assert chosen.host == "gpu/2"
    assert address(chosen, 80) == "/hosts/gpu%2F2/?term=true&format=json&w=80"
    assert pressed(chosen, "escape") == State()
    assert pressed(State(), "end", "down").chosen == 3
    assert pressed(State(), "end", "home", "up").chosen == 0


def test_filter_is_typed_taken_and_left() -> None:
    """Keys are text while a filter is typed; Enter takes it, Escape keeps the former one."""
    typed = pressed(State(), "/", *"q<5", "backspace", "6", "enter")
    assert (typed.filter, typed.done) == ("q<6", False)
    assert "filter=q%3C6" in address(typed, 80)
    assert pressed(typed, "/", "x", "escape").filter == "q<6"
    assert pressed(typed, "escape").filter == ""


def test_time_order_view_and_end() -> None:
    """Brackets step through time and end live; s and v go round; space holds; q ends."""
    back = pressed(State(), "{", "[")
    assert back.at_s == NOW - 4200
    assert f"at=%40{NOW - 4200}" in address(back, 80)
    assert pressed(back, "}", "}").at_s is None
    assert pressed(back, "l").at_s is None
    assert pressed(State(), "s", "r").sort == "gpu.util"
    assert pressed(State(), "S", "s").sort == ""
    assert pressed(State(), "v", "v").view == "rows"
    assert "view" not in address(pressed(State(), "v", "v", "v", "v", "v"), 80)
    assert pressed(State(), " ").held
    assert pressed(State(), "q").done
    assert pressed(State(), "/", "end-of-input").done
    assert not pressed(State(), "?", "x").helping


def test_screen_keeps_the_chosen_line_in_sight() -> None:
    """Scrolling follows the choice; a problem stands in place of lines; the help is there."""
    many = Answer(tuple((f"h{number}", f"line {number}") for number in range(50)))
    state, lines = screen(State(chosen=40), many, 20, 10, "live")
    assert ">line 40" in lines
    assert state.first == 33
    assert "!no answer" in screen(State(), Answer(problem="no answer"), 20, 10, "live")[1]
    assert any("quit" in line for line in screen(State(helping=True), many, 80, 24, "live")[1])
    assert "\x1b" not in "".join(screen(State(host="a\x1b[2J"), many, 80, 24, "live")[1])
