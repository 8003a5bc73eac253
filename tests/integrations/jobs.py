"""What a job must not break: it sees what its sender has written, waits for a replica, and leaves nothing behind."""

from collections.abc import Awaitable, Callable
from typing import Any

from lagwise import Causality, Router
from lagwise.testing import Cluster
from tests.kit.connections import write
from tests.kit.routers import let_go, stand_still

# Sends the job `count` and answers what it returned: how many there are, and why it read where it read.
Send = Callable[[str], Awaitable[Any]]


async def promises(cluster: Cluster, db: Router, send: Send, kind: str) -> dict[str, Any]:
    """What becomes of jobs that are sent behind a write, with the token and without it."""
    told: dict[str, Any] = {}
    with Causality():
        await write(db, f"{kind} waits")
        told["soon on a replica"] = tuple(await send(f"{kind} waits"))
    await stand_still(cluster)
    with Causality():
        await write(db, f"{kind} alone")
        told["late, from the primary"] = tuple(await send(f"{kind} alone"))
    told["the next job, sent by another"] = tuple(await send(f"{kind} alone"))
    await write(db, f"{kind} naive")
    told["without a causality"] = tuple(await send(f"{kind} naive"))
    await let_go(cluster, db)
    return told


PROMISED = {
    "soon on a replica": (1, "caught-up"),
    "late, from the primary": (1, "none-caught-up"),
    "the next job, sent by another": (0, "fresh"),  # it has no floor of the job before it
    "without a causality": (0, "fresh"),  # and misses what its sender wrote: nothing carried it
}
