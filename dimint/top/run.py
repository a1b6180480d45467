"""The driver of `dimint top`: asks the server on a thread of its own, reads keys, paints the screen, leaves it as it was."""

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from dimint.errors import SettingsError
from dimint.top.keys import read_keys
from dimint.top.state import Answer, State, address, press, screen
from dimint.visible import visible

__all__ = ["ask", "parse_url", "run_top"]

_TIMEOUT_S: Final = 10
_ANSWER_MAX_BYTES: Final = 32 << 20
_WAIT_S: Final = 0.1
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_COLOURS: Final = {"✖": 31, "▲": 33, "◌": 33, "●": 32}
_SIGN: Final = re.compile("[✖▲◌●]")
_STYLES: Final = {" ": "", ">": "\x1b[7m", "=": "\x1b[1;7m", "!": "\x1b[31m"}


def run_top(url: str, state: State, every_s: float) -> None:
    """Until `q`. Raises SettingsError if `url` is none, or if this is no terminal."""
    where = parse_url(url)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SettingsError("dimint top needs a terminal", hint="for one picture: dimint top --once, or curl 'URL/?term=true'")
    with ThreadPoolExecutor(1, thread_name_prefix="top") as asker, _screen() as resized:
        answer, asked = Answer(problem="asking …"), ""
        asking: Future[Answer] | None = None
        due = 0.0
        painted: list[str] = []
        while not state.done:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
            wanted = address(state, columns)
            if asking is None and (wanted != asked or (not state.held and time.monotonic() >= due)):
                asking, asked, due = asker.submit(ask, where, wanted), wanted, time.monotonic() + every_s
            if asking is not None and asking.done():
                answer, asking = asking.result(), None
            state = replace(state, chosen=min(state.chosen, max(0, len(answer.lines) - 1)))
            state, lines = screen(state, answer, columns, rows, _when(state))
            if lines != painted:
                _paint(lines)
                painted = lines
            for key in _keys(resized):
                state = press(state, key, answer, max(1, rows - 2), int(time.time()))


def ask(where: tuple[str, int], path: str) -> Answer:
    """What the server says to this path."""
    connection = http.client.HTTPConnection(*where, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_ANSWER_MAX_BYTES)
        if response.status != 200:
            return Answer(problem=visible(body.decode("utf-8", "replace").strip()[:500]) or f"HTTP {response.status}")
        lines = json.loads(body)["lines"]
        return Answer(tuple((line["host"], visible(str(line["text"]))) for line in lines))
    except (OSError, http.client.HTTPException) as error:
        return Answer(problem=f"no answer from {where[0]}:{where[1]}: {error}")
    except (ValueError, KeyError, TypeError):
        return Answer(problem=f"{where[0]}:{where[1]} is not the web app of this version")
    finally:
        connection.close()


def parse_url(url: str) -> tuple[str, int]:
    """Host and port of `http://host:port`, or of `host:port`. Raises SettingsError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"{url} has no usable port") from error
    if parts.scheme != "http" or not host:
        raise SettingsError(f"{url} is not the address of a web app, such as http://127.0.0.1:8080")
    return host, port or 80


def _when(state: State) -> str:
    return "live" if state.at_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.at_s))


def _paint(lines: list[str]) -> None:
    out = "\r\n".join(f"{_STYLES[line[0]]}{_signs(line)}\x1b[0m\x1b[K" for line in lines)
    sys.stdout.write(f"\x1b[H{out}\x1b[J")
    sys.stdout.flush()


def _signs(line: str) -> str:
    """A plain line with its symbols in colour; the others have one already."""
    return _SIGN.sub(lambda found: f"\x1b[{_COLOURS[found[0]]}m{found[0]}\x1b[39m", line[1:]) if line[0] == " " else line[1:]


def _keys(resized: int) -> list[str]:
    """The keys pressed within a moment; at once if there are some, or if the window has another size."""
    ready, _, _ = select.select([sys.stdin.fileno(), resized], [], [], _WAIT_S)
    if resized in ready:
        os.read(resized, 512)
    if sys.stdin.fileno() not in ready:
        return []
    return read_keys(os.read(sys.stdin.fileno(), 1024) or b"\x04")


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """The terminal's other screen, keys as they come; the old screen and mode come back whatever happens.

    Gives a file descriptor that can be read when the window has got another size.
    """
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def wake(_signal: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            writing.send(b"w")

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    old: list[tuple[signal.Signals, Callable[[int, FrameType | None], object] | int | None]] = []
    try:
        for number, handler in ((signal.SIGWINCH, wake), (signal.SIGTERM, end), (signal.SIGHUP, end)):
            old.append((number, signal.signal(number, handler)))
        tty.setraw(keyboard)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()
        yield reading.fileno()
    finally:
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        for number, former in old:
            signal.signal(number, former)
        reading.close()
        writing.close()
