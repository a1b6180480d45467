"""Tests of the foundation alone, as `make check` runs them: what asks for a server in Java or for a browser is left out.

A test says what it needs by asking for it, so there is no list to keep.
"""

import os
from typing import Final

__all__ = ["LEFT_OUT"]

LEFT_OUT: Final = "left out by `make check`" if os.environ.get("FOUNDATION_ONLY") else ""
"""Why a test that needs more than Python is skipped; empty where all tests run."""
