"""FastCRUD: its class in endpoints, and its generated router."""

from typing import Any

import pytest

pytest.importorskip("fastcrud", reason="FastCRUD is not installed: uv sync --group integrations")

from fastapi import FastAPI
from fastcrud import FastCRUD, crud_router
from pydantic import BaseModel

from lagwise.fastapi import ReadSession, WriteSession, lifespan, routed_session
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.routers import steady

from .promise import KEPT, kept_by

crud: FastCRUD[Any, Any, Any, Any, Any, Any] = FastCRUD(Item)


class ItemIn(BaseModel):
    name: str


async def test_the_class_in_endpoints(lagging: Cluster) -> None:
    """It commits by itself, in a WriteSession; it reads in a ReadSession, on replicas."""
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> None:
        await crud.create(session, ItemIn(name=name))

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await crud.count(session, name=name)

    assert await kept_by(app, lagging, db, "crud") == KEPT


async def test_the_generated_router(lagging: Cluster) -> None:
    """`crud_router(session=routed_session)`: by HTTP method; a change is found at once, and a page is a replica's."""
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))
    app.include_router(
        crud_router(
            session=routed_session,
            model=Item,
            create_schema=ItemIn,
            update_schema=ItemIn,
            path="/things",
            filter_config={"name": None},
        )
    )
    found = await kept_by(
        app,
        lagging,
        db,
        "crud router",
        write=lambda client, name: client.post("/things", json={"name": name}),
        read=lambda client, name: client.get("/things", params={"name": name}),
        count=lambda answer: len(answer.json()["data"]),
    )
    assert found == KEPT
