"""The application of docs/clients.md does what the page says of it."""

from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from lagwise import Router
from lagwise.httpx import propagate
from lagwise.store import RedisStore
from lagwise.testing import Cluster
from tests.kit.http import SECRET, http, opened
from tests.kit.redis_server import redis_server
from tests.kit.routers import PATIENT

from .pages import ROOT, blocks, run


async def test_its_clients_read_what_the_others_wrote(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an API key, by authentication, and from one service to the other; a client without a key misses the write."""
    shown = [block for block in blocks(ROOT / "docs" / "clients.md") if block.language == "python"]
    assert {"application"} == {block.how for block in shown}
    urls = {"primary": cluster.primary.url, "replica-1": cluster.replicas[0].url}
    async with redis_server(tmp_path) as redis:
        monkeypatch.setenv("REDIS_URL", redis.url)
        # On a busy machine Redis may be late once, or all of this take longer than the default `max_lag`: then reads
        # would use the primary.
        monkeypatch.setattr("lagwise.Router", partial(Router, policy=PATIENT))
        monkeypatch.setattr("lagwise.store.RedisStore", partial(RedisStore, timeout=5, lease=20))
        page: Any = await run(shown, urls, monkeypatch)

        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            page.app.app = inner
            await page.app(scope, receive, send)

        async with opened(page.api) as inner:
            page.orders = propagate(
                httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://orders"), secret=SECRET
            )
            kept = f"kept-{uuid4().hex[:8]}"  # no other page's
            await cluster.caught_up()
            await cluster.pause_replay("replica-1")

            async def get(path: str, **headers: str) -> int:
                async with http(wrapped) as device:
                    return int(
                        (await device.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})).text
                    )

            async with http(wrapped) as device:
                await device.post(f"/items/{kept}", headers={"x-api-key": "one"})
                await device.post("/mine/kept", headers={"authorization": "Bearer one"})
                assert (await device.post("/checkout/bought")).json() == 200
                assert (await device.get("/items/bought")).json() == 2
            await redis.age()
            assert [await get(f"/items/{kept}", x_api_key="one"), await get(f"/items/{kept}")] == [1, 0]
            assert await get("/mine/kept", authorization="Bearer one") == 0  # `user:one` is another principal
            await page.app._store.aclose()
            await page.orders.aclose()
