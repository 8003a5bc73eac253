"""fastapi-pagination: the page and its count in one read session."""

import pytest

pytest.importorskip("fastapi_pagination", reason="fastapi-pagination is not installed: uv sync --group integrations")

from fastapi import FastAPI
from fastapi_pagination import Page, add_pagination
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.ext.sqlalchemy import apaginate
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from lagwise.fastapi import ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.http import insert
from tests.kit.routers import steady

from .promise import KEPT, kept_by


class Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str


async def test_a_page_shows_what_was_written(lagging: Cluster) -> None:
    """Page by number with its total, and page by cursor: own writes at once, reads on replicas."""
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> None:
        await insert(session, name)

    @app.get("/items/{name}")
    async def page(name: str, session: ReadSession) -> Page[Shown]:
        found: Page[Shown] = await apaginate(session, select(Item).where(Item.name == name).order_by(Item.id))
        return found

    @app.get("/cursor/{name}")
    async def after(name: str, session: ReadSession) -> CursorPage[Shown]:
        found: CursorPage[Shown] = await apaginate(session, select(Item).where(Item.name == name).order_by(Item.id))
        return found

    add_pagination(app)
    by_number = await kept_by(app, lagging, db, "page", count=lambda answer: answer.json()["total"])
    assert by_number == KEPT
    by_cursor = await kept_by(
        app,
        lagging,
        db,
        "cursor",
        read=lambda client, name: client.get(f"/cursor/{name}"),
        count=lambda answer: len(answer.json()["items"]),
    )
    assert by_cursor == KEPT
