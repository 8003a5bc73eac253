"""A FastAPI application, as its author writes it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, assert_type

import httpx
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from redis.asyncio import Redis
from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from lagwise import Router
from lagwise.fastapi import (
    CausalityMiddleware,
    ReadAsyncpg,
    ReadConnection,
    ReadSession,
    RoutedSession,
    WriteAsyncpg,
    WriteSession,
    health_router,
    lifespan,
    read_asyncpg,
    read_connection,
    read_session,
    reads,
    write_asyncpg,
    writes,
)
from lagwise.httpx import propagate
from lagwise.store import MemoryStore, RedisStore

db = Router("postgresql+asyncpg://app@localhost/app", ["postgresql+asyncpg://app@localhost:5433/app"])
billing = Router("postgresql+asyncpg://app@localhost/billing")

Fresh = Annotated[AsyncSession, reads(max_staleness=1.0)]
Strong = Annotated[AsyncSession, reads(primary=True)]
Snapshot = Annotated[AsyncSession, reads(db, snapshot=True)]
Billing = Annotated[AsyncSession, writes(billing)]
Quick = Annotated[AsyncSession, reads(timeout=0.5)]
Stamps = Annotated[AsyncSession, writes(timeout=1, sticky=False)]


@asynccontextmanager
async def mine(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
    """A lifespan with a state of its own."""
    assert_type(app, FastAPI)
    yield {"mine": 1}


@asynccontextmanager
async def plain(_app: FastAPI) -> AsyncIterator[None]:
    """A lifespan without."""
    yield


app = FastAPI(lifespan=lifespan(db))
FastAPI(lifespan=lifespan(db, billing, inner=mine))
FastAPI(lifespan=lifespan(db, inner=plain))
app.add_middleware(CausalityMiddleware, secret="x")
app.add_middleware(CausalityMiddleware, secret=["new", "old"], secure=True, path="/", domain=None, route_header=True)
app.include_router(health_router(db), prefix="/health")
assert_type(health_router(db), APIRouter)
wrapped = CausalityMiddleware(app, secret="x")
CausalityMiddleware(app, secret="x", store=MemoryStore())
CausalityMiddleware(app, secret="x", store=RedisStore("redis://localhost"), key=lambda scope: scope["path"])
CausalityMiddleware(app, secret="x", store=RedisStore(Redis(decode_responses=True)), key=lambda scope: None)
assert_type(propagate(httpx.AsyncClient(base_url="http://a"), secret="x"), httpx.AsyncClient)
assert_type(propagate(httpx.Client(), secret=["new", "old"], hosts=["a"]), httpx.Client)


@app.get("/items/{item}")
async def show(item: int, session: ReadSession) -> int:
    """The alias is the session."""
    assert_type(session, AsyncSession)
    return (await session.scalars(select(literal(item)))).one()


@app.post("/items")
async def create(session: WriteSession) -> None:
    """So is this one."""
    assert_type(session, AsyncSession)


@app.api_route("/cart", methods=["GET", "POST"])
async def cart(session: RoutedSession) -> None:
    """And this one."""
    assert_type(session, AsyncSession)


@app.get("/fresh")
async def several(fresh: Fresh, strong: Strong, snapshot: Snapshot, other: Billing) -> None:
    """Dependencies with a bound of their own, or of a second database, are sessions too."""
    assert_type(fresh, AsyncSession)
    assert_type(strong, AsyncSession)
    assert_type(snapshot, AsyncSession)
    assert_type(other, AsyncSession)


@app.get("/stamped")
async def stamped(quick: Quick, stamps: Stamps) -> None:
    """Likewise with a limit, and for bookkeeping."""
    assert_type(quick, AsyncSession)
    assert_type(stamps, AsyncSession)


@app.get("/inline")
async def inline(session: Annotated[AsyncSession, reads(max_staleness=0.5)]) -> None:
    """Also without a name."""
    assert_type(session, AsyncSession)


@app.get("/core")
async def core(connection: ReadConnection) -> None:
    """SQLAlchemy's own connection, its results typed as everywhere."""
    assert_type(connection, AsyncConnection)
    assert_type((await connection.scalars(select(literal(1)))).one(), int)


@app.post("/driver")
async def driver(reading: ReadAsyncpg, writing: WriteAsyncpg) -> list[str]:
    """The driver brings no types: what it answers is the caller's to know."""
    await writing.executemany("INSERT INTO item (name) VALUES ($1)", [("a",)])
    return [row["name"] for row in await reading.fetch("SELECT name FROM item WHERE id > $1", 7)]


@app.websocket("/live")
async def live(socket: WebSocket, session: ReadSession) -> None:
    """A WebSocket has sessions as well."""
    assert_type(session, AsyncSession)
    await socket.accept()


async def repository(session: ReadSession) -> AsyncSession:
    """A dependency on a dependency."""
    return session


@app.get("/nested")
async def nested(session: Annotated[AsyncSession, Depends(repository)]) -> None:
    """What it answers is what it says."""
    assert_type(session, AsyncSession)


async def override() -> AsyncIterator[AsyncSession]:
    """What a test puts in the place of a session."""
    yield AsyncSession()


app.dependency_overrides[read_session] = override


async def connection_override() -> AsyncIterator[AsyncConnection]:
    """And in the place of a connection."""
    async with db.read.connect() as connection:
        yield connection


app.dependency_overrides |= dict.fromkeys((read_connection, read_asyncpg, write_asyncpg), connection_override)
