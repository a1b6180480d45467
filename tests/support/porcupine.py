"""Porcupine as a second judge: it knows nothing of the log and looks for an order of the operations by itself.

Its checks take exponential time in the worst case, so it gets windows: one key for as long as some hundred operations take.
"""

import json
import random
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.support.history import ABSENT, Op
from tests.support.services.jars import ROOT

__all__ = ["NoPorcupine", "build", "judge"]

SOURCE = ROOT / "tests" / "porcupine"
PROGRAM = ROOT / ".cache" / "porcupine"
WINDOW_OPS = 80
BUILD_S = 180
JUDGE_S = 240


class NoPorcupine(Exception):
    """Why there is none, in words."""


def build() -> Path:
    """The program, built if it is older than its source. Raises NoPorcupine."""
    sources = [path.stat().st_mtime for path in SOURCE.iterdir()]
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > max(sources):
        return PROGRAM
    if shutil.which("go") is None:
        raise NoPorcupine("no Go on this machine (Debian: apt install golang-go)")
    PROGRAM.parent.mkdir(exist_ok=True)
    command = ["go", "build", "-o", str(PROGRAM), "."]
    try:
        done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except subprocess.TimeoutExpired:
        raise NoPorcupine(f"go build took more than {BUILD_S} s") from None
    if done.returncode:
        raise NoPorcupine(f"go build: {done.stderr.strip()[-300:]}")
    return PROGRAM


def judge(ops: Sequence[Op], *, windows: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Judge so many windows of the history: how many were found to be what, and the illegal ones. Raises NoPorcupine."""
    program = build()
    by_key: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        if op.status != "refused" and (op.kind != "get" or (op.level == "strong" and op.status == "ok")):
            by_key[op.key].append(op)
    rng = random.Random(seed)
    keys = sorted(by_key)
    lines: list[str] = []
    for number in range(windows):
        key = keys[number % len(keys)]
        mine = sorted(by_key[key], key=lambda op: op.started)
        first = rng.randrange(max(1, len(mine) - WINDOW_OPS))
        begin, end = mine[first].started, mine[min(first + WINDOW_OPS, len(mine)) - 1].started
        lines += [_line(f"{key}#{number}", op, begin, end) for op in mine if _belongs(op, begin, end)]
    done = subprocess.run([str(program)], input="\n".join(lines), capture_output=True, text=True, timeout=JUDGE_S, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    illegal = [result["group"] for result in results if result["result"] == "Illegal"]
    return Counter(result["result"] for result in results), illegal


def _belongs(op: Op, begin: float, end: float) -> bool:
    """Whether an operation may have happened in a window. Reads must lie in it: the others saw what is not known here."""
    if op.kind == "get":
        return op.started >= begin and op.ended <= end
    return op.started <= end and (op.status == "unknown" or op.ended >= begin)


def _line(group: str, op: Op, begin: float, end: float) -> str:
    """A write that reaches out of the window may have happened before or after it: as if there were no reply."""
    unknown = op.status == "unknown" or op.started < begin or op.ended > end
    fields = {
        "group": group,
        "kind": op.kind,
        "call": round(op.started * 1e9),
        "return": round(op.ended * 1e9),
        "unknown": unknown,
        "written": op.written,
        "expected": None if op.expected == ABSENT else op.expected,
        "seen": None if op.seen == ABSENT else op.seen,
    }
    return json.dumps(fields)
