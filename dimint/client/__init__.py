"""The client library: `Client` for ordinary programs, `AsyncClient` for asyncio. Both do the same things.

from dimint.client import Client

with Client("127.0.0.1:5556") as client:
    client["greeting"] = {"text": "hello"}
    client.incr("visits")
"""

from dimint.client.aio import AsyncClient
from dimint.client.at import AsyncPast, Past
from dimint.client.operations import MISSING, Aged, CasResult, Key, Outcome, Versioned
from dimint.client.past import Difference, Moment, PastChange, Writer
from dimint.client.pipeline import Pending, Pipeline
from dimint.client.sync import Client
from dimint.client.watch import AsyncWatch, Watch
from dimint.client.watching import Change
from dimint.client.writes import Unresolved

__all__ = [
    "Aged",
    "AsyncClient",
    "AsyncPast",
    "AsyncWatch",
    "CasResult",
    "Change",
    "Client",
    "Difference",
    "Key",
    "MISSING",
    "Moment",
    "Outcome",
    "Past",
    "PastChange",
    "Pending",
    "Pipeline",
    "Unresolved",
    "Versioned",
    "Watch",
    "Writer",
]
