"""Applications whose sessions somebody else commits: COMMIT precedes the response there too, unchanged."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan
from lagwise.testing import Cluster
from tests.kit.http import SECRET, committed, http, insert, names, opened
from tests.kit.routers import both_in_rotation, patient, stand_still

PAIRS = 50


def reading(db: Router) -> FastAPI:
    """An application that counts items."""
    app = FastAPI(lifespan=lifespan(db))

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)

    return app


async def outcome(db: Router, cluster: Cluster, app: FastAPI, kind: str, refusing: str) -> tuple[int, int, int]:
    """How many own writes were missed with replay paused; the status, and the rows, of a COMMIT that fails."""
    wrapped = CausalityMiddleware(app, secret=SECRET, hold=2)
    async with opened(app, lambda _: wrapped) as running, http(running) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        missed = 0
        for number in range(PAIRS):
            client.cookies.clear()
            assert (await client.post(f"/items/{kind} {number}")).status_code == 200
            missed += (await client.get(f"/items/{kind} {number}")).json() != 1
        failed = await client.post(f"/items/{refusing}")
    return missed, failed.status_code, await committed(cluster, refusing)


async def test_dishka_in_its_request_scope(cluster: Cluster, refusing: str) -> None:
    """A provider that commits when the request's container closes."""
    pytest.importorskip("dishka", reason="dishka is not installed: uv sync --group integrations")
    from dishka import Provider, Scope, make_async_container, provide
    from dishka.integrations.fastapi import FromDishka, inject, setup_dishka

    db = patient(cluster)

    class Sessions(Provider):
        @provide(scope=Scope.REQUEST)
        async def session(self) -> AsyncIterator[AsyncSession]:
            async with db.write() as session:
                yield session
                await session.commit()

    app = reading(db)

    @app.post("/items/{name}")
    @inject
    async def create(name: str, session: FromDishka[AsyncSession]) -> None:
        await insert(session, name)

    setup_dishka(make_async_container(Sessions()), app)
    assert await outcome(db, cluster, app, "dishka", refusing) == (0, 500, 0)


async def test_advanced_alchemys_autocommit(cluster: Cluster, refusing: str) -> None:
    """Its middleware commits, by the response's status, when the response starts."""
    pytest.importorskip("advanced_alchemy", reason="advanced-alchemy is not installed: uv sync --group integrations")
    from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, AsyncSessionConfig, SQLAlchemyAsyncConfig

    db = patient(cluster)
    app = reading(db)
    config: Any = SQLAlchemyAsyncConfig(
        connection_string=cluster.primary.direct_url,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        commit_mode="autocommit",
    )
    config.session_maker = db.write
    alchemy = AdvancedAlchemy(config=config, app=app)

    @app.post("/items/{name}")
    async def create(name: str, request: Request) -> None:
        session = alchemy.get_async_session(request)
        await session.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": name})

    assert await outcome(db, cluster, app, "alchemy", refusing) == (0, 500, 0)
