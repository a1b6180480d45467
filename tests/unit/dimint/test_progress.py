"""How far long work is: JSON lines for programs, a line on a terminal, nothing in a file."""

import io
import json
import re

from dimint.progress import NO_PROGRESS, progress_of, report


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_numbers() -> None:
    """Rate and what is left follow from what was done; nothing is made up before anything was."""
    assert report("x", 0, 10, 0, 1.0).left_s is None
    assert report("x", 5, 10, 500, 2.0)[3:] == (500, 250.0, 2.0, "events")
    assert str(report("x", 10, 10, 7, 0.0)) == "x: 100 %, 7 events, 0 events/s, 0:00 left"
    assert str(report("x", 0, 0, 0, 0.0)) == "x: 100 %, 0 events, 0 events/s"
    assert str(report("x", 1, 7201, 10, 1.0)).endswith(", 2:00:00 left")
    assert report("x", 75, 100, 25, 1.0, begun=50).left_s == 1.0, "what was done before says nothing of the rate"
    assert report("x", 50, 100, 0, 1.0, begun=50).left_s is None
    assert str(report("x", 1, 2, 1, 1.0, "hosts")) == "x: 50 %, 1 hosts, 1 hosts/s, 0:01 left"


def test_for_programs() -> None:
    """At the end in any case, with the same fields each time."""
    stream = io.StringIO()
    progress = progress_of("export", as_json=True, stream=stream)
    for done in range(1000):
        progress.at(done, 1000, done * 3)  # not half a second: no line a call
    progress.end(1000, 1000, 3000)
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["progress"], line["done"], line["total"], line["events"], line["finished"]) == ("export", 1000, 1000, 3000, True)
    assert set(line) == {"progress", "done", "total", "events", "rate", "left_s", "finished"}
    progress_of("accounting", as_json=True, stream=stream, unit="hosts").end(4, 4, 4)
    assert json.loads(stream.getvalue().splitlines()[1])["hosts"] == 4


def test_for_people() -> None:
    """Work that is over at once says nothing; longer work moves one line, which its end completes."""
    stream = Terminal()
    progress = progress_of("import", stream=stream)
    progress.end(1, 1, 1)
    assert stream.getvalue() == ""
    progress = progress_of("import", stream=stream)
    while not stream.getvalue():
        progress.at(1, 4, 10)
    progress.end(4, 4, 40)
    first, last = stream.getvalue().split("\x1b[K")[:2]
    assert re.fullmatch(r"\rimport: 25 %, 10 events, [\d,]+ events/s, 0:0\d left", first)
    assert last.startswith("\rimport: 100 %, 40 events")
    assert stream.getvalue().endswith("\x1b[K\n")


def test_in_files_nothing() -> None:
    """Neither terminal nor asked for."""
    assert progress_of("x", stream=io.StringIO()) is NO_PROGRESS
