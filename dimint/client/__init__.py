"""The client library: `Client` for ordinary programs, `AsyncClient` for asyncio. Both do the same things.

from dimint.client import Client

with Client("127.0.0.1:5556") as client:
    client["greeting"] = {"text": "hello"}
    client.incr("visits")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dimint.client.aio import AsyncClient
    from dimint.client.aio_watch import AsyncWatch
    from dimint.client.at import AsyncPast, Past
    from dimint.client.operations import MISSING, Aged, CasResult, Key, Outcome, Versioned
    from dimint.client.past import Difference, Moment, PastChange, Writer
    from dimint.client.pipeline import Pending, Pipeline
    from dimint.client.sync import Client
    from dimint.client.watch import Watch
    from dimint.client.watching import Change
    from dimint.client.writes import Unresolved
else:
    from dimint.on_demand import names_on_demand

    __getattr__ = names_on_demand(
        __name__,
        {
            "dimint.client.aio": "AsyncClient",
            "dimint.client.aio_watch": "AsyncWatch",
            "dimint.client.at": "AsyncPast Past",
            "dimint.client.operations": "MISSING Aged CasResult Key Outcome Versioned",
            "dimint.client.past": "Difference Moment PastChange Writer",
            "dimint.client.pipeline": "Pending Pipeline",
            "dimint.client.sync": "Client",
            "dimint.client.watch": "Watch",
            "dimint.client.watching": "Change",
            "dimint.client.writes": "Unresolved",
        },
    )

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
