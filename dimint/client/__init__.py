"""The client library: `Client` for ordinary programs, `AsyncClient` for asyncio. Both do the same things.

from dimint.client import Client

with Client("127.0.0.1:5556") as client:
    client["greeting"] = {"text": "hello"}
    client.incr("visits")
"""

from dimint.client.aio import AsyncClient
from dimint.client.operations import MISSING, Aged, CasResult, Key, Outcome, Versioned
from dimint.client.pipeline import Pending, Pipeline
from dimint.client.sync import Client
from dimint.client.watch import AsyncWatch, Watch
from dimint.client.watching import Change
from dimint.client.writes import Unresolved

__all__ = [
    "Aged",
    "AsyncClient",
    "AsyncWatch",
    "CasResult",
    "Change",
    "Client",
    "Key",
    "MISSING",
    "Outcome",
    "Pending",
    "Pipeline",
    "Unresolved",
    "Versioned",
    "Watch",
]
