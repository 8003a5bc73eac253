"""What the other tests of this folder rest on: replicas so far behind that a pattern which reads the past is caught."""

import httpx
from fastapi import FastAPI

from lagwise.fastapi import lifespan
from lagwise.testing import Cluster
from tests.kit.http import with_items
from tests.kit.routers import steady

from .promise import KEPT, kept_by


async def test_who_loses_the_token_misses_writes(lagging: Cluster) -> None:
    """A client that keeps its cookies finds what it wrote, one that drops them does not."""
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)

    async def forgetful(client: httpx.AsyncClient, name: str) -> httpx.Response:
        client.cookies.clear()
        return await client.get(f"/items/{name}")

    assert await kept_by(app, lagging, db, "kept") == KEPT
    lost = await kept_by(app, lagging, db, "dropped", read=forgetful)
    assert lost.missed > 0
