"""The application under test: routed by lagwise, and the usual recipe beside it."""

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise import Router
from lagwise._client import known
from lagwise.fastapi import (
    CausalityMiddleware,
    ReadSession,
    RoutedSession,
    WriteSession,
    health_router,
    lifespan,
)
from lagwise.testing import Cluster

SECRET = "for tests only"


class Base(DeclarativeBase):
    """The tables of the tests."""


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def create_tables(cluster: Cluster) -> None:
    """The tables, on every node."""
    engine = create_async_engine(cluster.primary.direct_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    await cluster.caught_up()


async def found(session: AsyncSession, item_id: int) -> dict[str, Any]:
    """The item and who answered, or 404."""
    item = await session.get(Item, item_id)
    replica = await session.scalar(text("SELECT pg_is_in_recovery()"))
    if item is None:
        raise HTTPException(404, headers={"X-Replica": str(replica)})
    return {"id": item.id, "name": item.name, "replica": replica, "pid": os.getpid()}


async def added(session: AsyncSession, name: str) -> dict[str, Any]:
    """A new item."""
    item = Item(name=name)
    session.add(item)
    await session.flush()
    return {"id": item.id, "pid": os.getpid()}


def routed(db: Router, secret: str | list[str] = SECRET) -> FastAPI:
    """An application whose sessions lagwise routes."""
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=secret, route_header=True)
    app.include_router(health_router(db), prefix="/health")

    @app.get("/process")
    async def process() -> tuple[int, int]:
        return os.getpid(), max(known.processes.values(), default=0)

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> dict[str, Any]:
        return await added(session, name)

    @app.get("/items/{item_id}")
    async def show(item_id: int, session: ReadSession) -> dict[str, Any]:
        return await found(session, item_id)

    @app.api_route("/cart/{name}", methods=["GET", "POST"])
    async def cart(name: str, session: RoutedSession) -> dict[str, Any]:
        if await session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
            return {"read_only": True}
        return await added(session, name)

    return app


def naive(primary: str, replicas: list[str]) -> FastAPI:
    """The usual recipe: two engines, two dependencies."""
    writing = create_async_engine(primary, pool_size=20)
    reading = [create_async_engine(url, pool_size=20) for url in replicas]
    turns = itertools.cycle(reading)

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        yield
        for engine in (writing, *reading):
            await engine.dispose()

    async def get_write_db() -> AsyncIterator[AsyncSession]:
        async with async_sessionmaker(writing, expire_on_commit=False).begin() as session:
            yield session

    async def get_read_db() -> AsyncIterator[AsyncSession]:
        async with async_sessionmaker(next(turns), expire_on_commit=False)() as session:
            yield session

    app = FastAPI(lifespan=run)

    @app.post("/items/{name}")
    async def create(name: str, session: Annotated[AsyncSession, Depends(get_write_db)]) -> dict[str, Any]:
        return await added(session, name)

    @app.get("/items/{item_id}")
    async def show(item_id: int, session: Annotated[AsyncSession, Depends(get_read_db)]) -> dict[str, Any]:
        return await found(session, item_id)

    return app


def from_environment() -> FastAPI:
    """For worker processes."""
    return routed(Router(os.environ["PRIMARY"], os.environ["REPLICAS"].split(",")))
