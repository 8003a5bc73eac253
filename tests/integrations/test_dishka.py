"""dishka: sessions from its request scope."""

from collections.abc import AsyncIterator
from typing import NewType

import pytest

pytest.importorskip("dishka", reason="dishka is not installed: uv sync --group integrations")

from dishka import Provider, Scope, make_async_container, provide
from dishka.integrations.fastapi import FromDishka, inject, setup_dishka
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from lagwise.fastapi import lifespan
from lagwise.testing import Cluster
from tests.kit.http import insert, names
from tests.kit.routers import patient, steady

from .promise import KEPT, acknowledged_before_commit, kept_by

Reading = NewType("Reading", AsyncSession)


def around(db: Router) -> FastAPI:
    """An application whose sessions are dishka's: the one that writes is committed when the request's scope ends."""

    class Sessions(Provider):
        @provide(scope=Scope.REQUEST)
        async def writing(self) -> AsyncIterator[AsyncSession]:
            async with db.write() as session:
                yield session
                await session.commit()

        @provide(scope=Scope.REQUEST)
        async def reading(self) -> AsyncIterator[Reading]:
            async with db.read() as session:
                yield Reading(session)

    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items/{name}")
    @inject
    async def create(name: str, session: FromDishka[AsyncSession]) -> None:
        await insert(session, name)

    @app.get("/items/{name}")
    @inject
    async def count(name: str, session: FromDishka[Reading]) -> int:
        return await names(session, name)

    setup_dishka(make_async_container(Sessions()), app)
    return app


async def test_sessions_of_the_request_scope(lagging: Cluster) -> None:
    """One provider for `db.write`, one for `db.read`: own writes at once, reads on replicas."""
    db = steady(lagging)
    assert await kept_by(around(db), lagging, db, "dishka") == KEPT


async def test_its_commit_precedes_the_response(cluster: Cluster, refusing: str) -> None:
    """Its scope ends after the response: held back, no own write is missed, and a COMMIT that fails is a 500."""
    db = patient(cluster)
    assert await acknowledged_before_commit(around(db), cluster, db, "dishka", refusing) == (0, 500, 0)
