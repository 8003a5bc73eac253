"""Engines made in lifespan and kept on `app.state`, with every option they had: the Router takes them as they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, WriteSession, lifespan


def engine_for(url: str) -> AsyncEngine:
    return create_async_engine(
        url,
        connect_args={"server_settings": {"application_name": "shop", "jit": "off"}, "command_timeout": 30},
        pool_size=5,
        max_overflow=5,
        pool_timeout=10,
        pool_recycle=1800,
        pool_use_lifo=True,
        echo=False,
    )


@asynccontextmanager
async def run(app: FastAPI) -> AsyncIterator[None]:
    app.state.engines = [engine_for(url) for url in (PRIMARY, *REPLICAS)]
    primary, *replicas = app.state.engines
    app.state.db = Router(primary, replicas)
    async with lifespan(app.state.db)(app):  # ReadSession and WriteSession find it here
        yield
    for engine in app.state.engines:  # yours: the Router never disposes of them
        await engine.dispose()


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.db.read() as session:
        yield session


api = FastAPI(lifespan=run)
app = CausalityMiddleware(api, secret=SECRET, route_header=True)
SETTINGS = text("SELECT current_setting('application_name') || ' ' || current_setting('jit')")


@api.get("/settings")
async def reads(session: Annotated[AsyncSession, Depends(get_session)]) -> str:
    return str(await session.scalar(SETTINGS))


@api.post("/settings")
async def writes(session: WriteSession) -> str:
    return str(await session.scalar(SETTINGS))
