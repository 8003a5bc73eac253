"""The lifespan: Routers are open while the application serves, and closed after it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import NotOpen, Router
from lagwise.fastapi import (
    CausalityMiddleware,
    ReadSession,
    WriteSession,
    lifespan,
    reads,
    writes,
)
from lagwise.testing import Cluster
from tests.kit.http import (
    SECRET,
    application,
    http,
    insert,
    names,
    opened,
    serving,
    with_items,
)
from tests.kit.routers import PATIENT, both_in_rotation, in_rotation, patient, stand_still, steady


async def test_a_lifespan_keeps_the_one_that_was_there(cluster: Cluster) -> None:
    """`lifespan(db, inner=...)`: runs inside, with the Router open, and its state reaches the requests."""
    db = steady(cluster)
    happened = []

    @asynccontextmanager
    async def inner(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with db.read() as session:
            happened.append(await session.scalar(text("SELECT 'started'")))
        yield {"settings": "kept"}
        async with db.read() as session:
            happened.append(await session.scalar(text("SELECT 'stopped'")))

    app = FastAPI(lifespan=lifespan(db, inner=inner))

    @app.get("/")
    async def show(request: Request, session: ReadSession) -> list[Any]:
        return [request.state.settings, await session.scalar(text("SELECT 1"))]

    async with serving(app) as client:
        assert (await client.get("/")).json() == ["kept", 1]
    assert happened == ["started", "stopped"]


async def test_an_inner_lifespan_without_state(cluster: Cluster) -> None:
    """An inner lifespan that yields nothing is fine too, and `app.state` it sets is kept."""
    db = steady(cluster)

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[None]:
        app.state.mine = "kept"
        yield

    app = FastAPI(lifespan=lifespan(db, inner=inner))
    with_items(app)

    @app.get("/")
    async def show(request: Request) -> Any:
        return request.app.state.mine

    async with serving(app) as client:
        assert (await client.get("/")).json() == "kept"
        assert (await client.get("/items/none")).status_code == 200


async def test_a_failing_inner_lifespan_closes_the_router(cluster: Cluster) -> None:
    """When the application does not start, the Router does not stay open."""
    db = steady(cluster)

    @asynccontextmanager
    async def inner(_: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no configuration")
        yield

    with pytest.raises(RuntimeError, match="no configuration"):
        async with opened(FastAPI(lifespan=lifespan(db, inner=inner))):
            pass
    with pytest.raises(NotOpen):
        _ = db.view


async def test_a_missing_lifespan_says_so() -> None:
    """A request to an application without `lifespan(db)` fails with NotOpen, which names the line to write."""
    app = FastAPI()
    with_items(app)
    async with http(app) as client:
        assert (await client.get("/items/x")).status_code == 500
    async with http(app, raising=True) as client:
        with pytest.raises(NotOpen, match=r"FastAPI\(lifespan=lifespan\(db\)\)"):
            await client.get("/items/x")


async def test_a_client_that_runs_no_lifespan_is_told_how(cluster: Cluster) -> None:
    """The error names the line for tests, and with it the same request is answered."""
    db = Router(cluster.primary.url)
    api = FastAPI(lifespan=lifespan(db))
    with_items(api)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        with pytest.raises(NotOpen, match=r"`async with lifespan\(db\)\(api\):`"):
            await client.get("/items/x")
        async with lifespan(db)(api):
            assert (await client.get("/items/x")).status_code != 500


def test_a_lifespan_needs_a_router() -> None:
    """`lifespan()` without a Router is refused where it is written."""
    with pytest.raises(ValueError, match="lifespan needs a Router"):
        lifespan()


# More than one database


async def test_two_databases_in_one_application(cluster: Cluster, elsewhere: Cluster) -> None:
    """`reads(db2)` and `writes(db2)` use the second database; one token covers both."""
    db, db2 = patient(cluster), Router(elsewhere.primary.url, [elsewhere.replicas[0].url], policy=PATIENT)
    app = FastAPI(lifespan=lifespan(db, db2))
    app.add_middleware(CausalityMiddleware, secret=SECRET, route_header=True)
    with_items(app)

    @app.post("/second/{name}")
    async def create(name: str, session: Annotated[AsyncSession, writes(db2)]) -> None:
        await insert(session, name)

    @app.get("/second/{name}")
    async def count(name: str, session: Annotated[AsyncSession, reads(db2)]) -> int:
        return await names(session, name)

    @app.post("/both/{name}")
    async def create_both(name: str, session: WriteSession, other: Annotated[AsyncSession, writes(db2)]) -> None:
        await insert(session, name)
        await insert(other, name)

    async with opened(app) as running:
        await both_in_rotation(db)
        await in_rotation(db2, "replica-1")
        await stand_still(cluster)
        await stand_still(elsewhere)
        async with http(running) as client:
            await client.post("/second/in two databases")
            assert (await client.get("/second/in two databases")).json() == 1
            assert (await client.get("/items/in two databases")).json() == 0
        async with http(running) as client:
            await client.post("/both/in two databases")
            assert (await client.get("/second/in two databases")).json() == 2
            assert (await client.get("/items/in two databases")).json() == 1
        async with http(running) as stranger:
            assert (await stranger.get("/second/in two databases")).json() == 0
            assert (await stranger.get("/items/in two databases")).json() == 0


async def test_two_routers_open_and_close_together(cluster: Cluster, elsewhere: Cluster) -> None:
    """`lifespan(db, db2)`: both are open while the application serves, and both closed after it."""
    db, db2 = steady(cluster), Router(elsewhere.primary.url)
    async with opened(FastAPI(lifespan=lifespan(db, db2))):
        assert [db.view.primary is not None, db2.view.primary is not None] == [True, True]
    for one in (db, db2):
        with pytest.raises(NotOpen):
            _ = one.view


async def test_a_second_database_outside_the_lifespan_says_so(cluster: Cluster) -> None:
    """`reads(db2)` of a Router that nobody opened fails with NotOpen."""
    db, forgotten = steady(cluster), steady(cluster)
    app = application(db)

    @app.get("/")
    async def show(session: Annotated[AsyncSession, reads(forgotten)]) -> None:
        raise AssertionError("never reached")

    async with opened(app) as running, http(running, raising=True) as client:
        with pytest.raises(NotOpen, match="is not open"):
            await client.get("/")
