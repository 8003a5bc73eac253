"""advanced-alchemy: repositories, services, and the FastAPI extension that commits by a response's status."""

from typing import Any

import pytest

pytest.importorskip("advanced_alchemy", reason="advanced-alchemy is not installed: uv sync --group integrations")

from advanced_alchemy.base import DefaultBase
from advanced_alchemy.exceptions import RepositoryError
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.filters import LimitOffset
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService
from fastapi import FastAPI, Request
from sqlalchemy.orm import Mapped, mapped_column

from lagwise import ReadOnly
from lagwise.fastapi import ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster
from tests.kit.http import insert, names
from tests.kit.routers import patient, steady

from .promise import KEPT, acknowledged_before_commit, kept_by


class Thing(DefaultBase):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Things(SQLAlchemyAsyncRepository[Thing]):
    model_type = Thing


class ThingService(SQLAlchemyAsyncRepositoryService[Thing, Things]):
    repository_type = Things


async def test_a_repository(lagging: Cluster) -> None:
    """`add` in a WriteSession, `count` and `get_many_and_count` in a ReadSession, on a replica."""
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> int:
        return (await Things(session=session).add(Thing(name=name))).id

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        things = Things(session=session)
        page, total = await things.get_many_and_count(LimitOffset(10, 0), name=name)
        assert len(page) == total == await things.count(name=name)
        return total

    assert await kept_by(app, lagging, db, "repository") == KEPT


async def test_a_service(lagging: Cluster) -> None:
    """`create(auto_commit=True)` commits by itself; its reads are a replica's."""
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> int:
        return (await ThingService(session=session).create({"name": name}, auto_commit=True)).id

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return len(await ThingService(session=session).get_many(name=name))

    assert await kept_by(app, lagging, db, "service") == KEPT


async def test_a_service_in_a_read_session_writes_nothing(lagging: Cluster) -> None:
    """What is added through a read session is refused: a RepositoryError, as of every database error."""
    async with steady(lagging) as db, db.read() as session:
        with pytest.raises(RepositoryError) as refused:
            await ThingService(session=session).create({"name": "service, forbidden"})
    assert isinstance(refused.value.__cause__, ReadOnly)


async def test_its_autocommit_precedes_the_response(cluster: Cluster, refusing: str) -> None:
    """Its middleware commits when the response starts: no own write is missed, and a COMMIT that fails is a 500."""
    db = patient(cluster)
    app = FastAPI(lifespan=lifespan(db))
    config: Any = SQLAlchemyAsyncConfig(
        connection_string=cluster.primary.direct_url,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        commit_mode="autocommit",
    )
    config.session_maker = db.write
    alchemy = AdvancedAlchemy(config=config, app=app)

    @app.post("/items/{name}")
    async def create(name: str, request: Request) -> None:
        await insert(alchemy.get_async_session(request), name)

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)

    assert await acknowledged_before_commit(app, cluster, db, "alchemy", refusing) == (0, 500, 0)
