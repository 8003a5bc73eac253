"""What the README asks of an application that exists already is all that it takes."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan
from lagwise.testing import Cluster
from tests.kit.application import SECRET, Item
from tests.kit.serving import client, served

from .pages import ROOT, blocks

# What the application has imported.
NAMED: tuple[Any, ...] = (
    AsyncSession, CausalityMiddleware, Depends, FastAPI, Item, Router,
    async_sessionmaker, create_async_engine, lifespan, select,
)  # fmt: skip


@pytest.mark.parametrize("sign", "-+")
async def test_an_application_before_and_after_its_move(cluster: Cluster, sign: str) -> None:
    """Both sides of the diff run; an endpoint that still uses `get_db` writes what the moved one reads."""
    (diff,) = (block.code for block in blocks(ROOT / "README.md") if block.language == "diff")
    side = "\n".join(line[1:] for line in diff.splitlines() if line[:1] in {sign, " "})
    module: dict[str, Any] = {one.__name__: one for one in NAMED}
    module |= {"ReadSession": ReadSession, "SECRET": SECRET}
    module |= {"PRIMARY": cluster.primary.url, "REPLICA": cluster.replicas[0].url}
    exec(side, module)
    inner: FastAPI = module.get("api", module["app"])

    @inner.post("/items/{name}")
    async def create(name: str, session: Annotated[AsyncSession, Depends(module["get_db"], scope="function")]) -> None:
        session.add(Item(name=name))

    async with served(module["app"]) as url, client(url) as http:
        await cluster.caught_up()
        await cluster.pause_replay("replica-1")
        assert (await http.post(f"/items/moved {sign}")).status_code == 200
        assert f"moved {sign}" in (await http.get("/items")).json()
    if sign == "-":
        await module["engine"].dispose()
