"""SQLModel: its session class, and `exec`."""

from typing import Annotated

import pytest

pytest.importorskip("sqlmodel", reason="SQLModel is not installed: uv sync --group integrations")

from fastapi import FastAPI
from sqlmodel import Field, SQLModel, func, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lagwise import ReadOnly
from lagwise.fastapi import lifespan, reads, writes
from lagwise.testing import Cluster
from tests.kit.routers import steady

from .promise import KEPT, kept_by

Read = Annotated[AsyncSession, reads()]
Write = Annotated[AsyncSession, writes()]


class Hero(SQLModel, table=True):
    __tablename__ = "item"
    id: int | None = Field(default=None, primary_key=True)
    name: str


async def test_exec_reads_what_was_written(lagging: Cluster) -> None:
    """`class_` in session_options gives `exec`: own writes at once, reads on replicas."""
    db = steady(lagging, session_options={"class_": AsyncSession})
    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items/{name}")
    async def create(name: str, session: Write) -> Hero:
        hero = Hero(name=name)
        session.add(hero)
        await session.flush()
        await session.refresh(hero)
        return hero

    @app.get("/items/{name}")
    async def count(name: str, session: Read) -> int:
        return (await session.exec(select(func.count()).select_from(Hero).where(Hero.name == name))).one()

    assert await kept_by(app, lagging, db, "sqlmodel") == KEPT


async def test_exec_of_a_write_is_refused_in_a_read_session(lagging: Cluster) -> None:
    """`exec` passes no fence."""
    async with steady(lagging, session_options={"class_": AsyncSession}) as db, db.read() as session:
        assert isinstance(session, AsyncSession)
        with pytest.raises(ReadOnly):
            await session.exec(insert(Hero).values(name="sqlmodel, forbidden"))
