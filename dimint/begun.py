"""Long work that goes on where it was: a small file beside what is unfinished says what it was begun for.

Only what was begun for exactly the same (log, code, sources) may be gone on with: anything else is begun anew.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["note_begun", "was_begun"]


def was_begun(path: Path, what: Mapping[str, object]) -> bool:
    """Whether the note at `path` says exactly `what`. A note that is missing or damaged says nothing."""
    try:
        found: object = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return found == dict(what)


def note_begun(path: Path, what: Mapping[str, object]) -> None:
    """Write the note, in one step."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(what) + "\n")
    os.replace(fresh, path)
