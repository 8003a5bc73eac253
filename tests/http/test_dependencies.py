"""Sessions as dependencies: of the right kind wherever an endpoint asks for one, replaced or of a class of your own."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import anyio.from_thread
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from lagwise.fastapi import (
    ReadSession,
    RoutedSession,
    WriteSession,
    lifespan,
    read_session,
    reads,
    writes,
)
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.http import (
    IN_RECOVERY,
    READ_ONLY,
    application,
    committed,
    cookie_of,
    http,
    insert,
    names,
    reason_of,
    serving,
    with_items,
)
from tests.kit.routers import both_in_rotation, patient, stand_still, steady


@pytest.mark.parametrize(
    ("declare", "options", "message"),
    [
        (reads, {"max_staleness": -1.0}, "max_staleness must be at least 0 seconds"),
        (reads, {"max_staleness": float("nan")}, "max_staleness must be at least 0 seconds"),
        (reads, {"timeout": 0}, "timeout must be a number of seconds, above 0"),
        (writes, {"timeout": -0.5}, "timeout must be a number of seconds, above 0"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused_where_it_is_declared(
    declare: Callable[..., Any], options: dict[str, float], message: str
) -> None:
    """With the error of `db.read()` and `db.write()`, when the module is imported and not by the first request."""
    with pytest.raises(ValueError, match=message):
        declare(**options)


async def test_a_request_without_the_middleware_is_routed(cluster: Cluster) -> None:
    """Without anyone to carry a token, writes go to the primary, reads to a replica, and nothing is set."""
    db = steady(cluster)
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)

    @app.get("/where")
    async def where(session: ReadSession) -> bool:
        return bool(await session.scalar(IN_RECOVERY))

    async with serving(app) as client:
        await both_in_rotation(db)
        written = await client.post("/items/bare")
        await cluster.caught_up()
        assert (written.status_code, "set-cookie" in written.headers) == (200, False)
        assert (await client.get("/items/bare")).json() == 1
        assert (await client.get("/where")).json() is True


async def test_def_endpoints_share_the_causality(cluster: Cluster) -> None:
    """An endpoint in a worker thread uses its session through the loop, and what it writes is in the token."""
    db = patient(cluster)
    app = application(db, route_header=True)

    @app.post("/items/{name}")
    def create(name: str, session: WriteSession) -> None:
        anyio.from_thread.run(insert, session, name)

    @app.get("/items/{name}")
    def count(name: str, session: ReadSession) -> int:
        return anyio.from_thread.run(names, session, name)

    @app.get("/opened-here/{name}")
    def opened_here(name: str) -> int:
        async def ask() -> int:
            async with db.read() as session:
                return await names(session, name)

        return anyio.from_thread.run(ask)

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert cookie_of(await client.post("/items/threaded")) is not None
        shown = await client.get("/items/threaded")
        assert (shown.json(), reason_of(shown)) == (1, "none-caught-up")
        shown = await client.get("/opened-here/threaded")
        assert (shown.json(), reason_of(shown)) == (1, "none-caught-up")


async def test_a_dependency_override_replaces_the_session(cluster: Cluster) -> None:
    """`app.dependency_overrides[read_session]` puts the test's own session in place of a routed one."""
    app = FastAPI()
    mine = create_async_engine(cluster.primary.direct_url)

    async def own() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(mine, info={"mine": True}) as session:
            yield session

    app.dependency_overrides[read_session] = own

    @app.get("/")
    async def show(session: ReadSession) -> dict[str, Any]:
        return {**session.info, "answer": await session.scalar(text("SELECT 42"))}

    async with http(app) as client:
        assert (await client.get("/")).json() == {"mine": True, "answer": 42}
    await mine.dispose()


# What a dependency may ask for


async def test_reads_take_options(cluster: Cluster) -> None:
    """`reads(max_staleness=)`, `reads(primary=True)`, `reads(snapshot=True)` do what `db.read` does with them."""
    db = patient(cluster)
    app = application(db)

    async def about(session: AsyncSession) -> list[Any]:
        level = await session.scalar(text("SELECT current_setting('transaction_isolation')"))
        read_only = await session.scalar(READ_ONLY)
        return [session.info["lagwise.route"].reason, await session.scalar(IN_RECOVERY), level, read_only]

    @app.get("/fresh")
    async def fresh(session: Annotated[AsyncSession, reads(max_staleness=30)]) -> list[Any]:
        return await about(session)

    @app.get("/impossible")
    async def impossible(session: Annotated[AsyncSession, reads(max_staleness=0)]) -> list[Any]:
        return await about(session)

    @app.get("/primary")
    async def primary(session: Annotated[AsyncSession, reads(primary=True)]) -> list[Any]:
        return await about(session)

    @app.get("/snapshot")
    async def snapshot(session: Annotated[AsyncSession, reads(snapshot=True)]) -> list[Any]:
        async with session.begin_nested():
            return await about(session)

    async with serving(app) as client:
        await both_in_rotation(db)
        answers = {path: (await client.get(path)).json() for path in ("/fresh", "/impossible", "/primary", "/snapshot")}
    assert answers == {
        "/fresh": ["fresh", True, "read committed", True],
        "/impossible": ["all-lagging", False, "read committed", True],
        "/primary": ["strong", False, "read committed", True],
        "/snapshot": ["fresh", True, "repeatable read", True],
    }


METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "POST", "PUT", "PATCH", "DELETE"]


async def test_a_routed_session_goes_by_the_method(cluster: Cluster) -> None:
    """GET, HEAD, OPTIONS, TRACE and QUERY read; every other method may write, and is committed."""
    db = steady(cluster)
    app = application(db, route_header=True)

    @app.api_route("/", methods=METHODS)
    async def any_method(session: RoutedSession, request: Request) -> None:
        if not await session.scalar(READ_ONLY):
            await insert(session, f"by {request.method}")

    async with serving(app) as client:
        await both_in_rotation(db)
        went = {}
        for method in METHODS:
            client.cookies.clear()
            answer = await client.request(method, "/")
            went[method] = [answer.status_code, reason_of(answer), await committed(cluster, f"by {method}")]
    assert went == {
        **{method: [200, "fresh", 0] for method in METHODS[:5]},
        **{method: [200, "write", 1] for method in METHODS[5:]},
    }


# The application's own session classes


class Results(AsyncSession):
    """What SQLModel does: an AsyncSession with a method of its own."""

    async def exec(self, statement: Any) -> list[Any]:
        """Scalars as a list."""
        return list((await self.scalars(statement)).all())


class Noting(Session):
    """A synchronous session class of the application's own."""

    def note(self) -> str:
        """Something to recognise it by."""
        return "mine"


async def test_session_classes_of_the_application_are_kept(cluster: Cluster) -> None:
    """`class_` and `sync_session_class` in session_options: instances of both, and routed all the same."""
    db = patient(cluster, session_options={"class_": Results, "sync_session_class": Noting, "info": {"tenant": 7}})
    app = application(db)
    with_items(app)

    @app.get("/mine/{name}")
    async def mine(name: str, session: ReadSession) -> list[Any]:
        assert isinstance(session, Results)
        assert isinstance(session.sync_session, Noting)
        found = await session.exec(select(Item.name).where(Item.name == name))
        return [found, session.sync_session.note(), session.info["tenant"]]

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        await client.post("/items/own-class")
        assert (await client.get("/mine/own-class")).json() == [["own-class"], "mine", 7]


async def test_a_class_that_brings_its_own_sync_class(cluster: Cluster) -> None:
    """An AsyncSession subclass with `sync_session_class` set keeps it."""

    class Bringing(AsyncSession):
        sync_session_class = Noting

    async with steady(cluster, session_options={"class_": Bringing}) as db, db.write() as session:
        assert isinstance(session, Bringing)
        assert isinstance(session.sync_session, Noting)
        await session.execute(select(Item).limit(1))
        assert session.info["lagwise.route"].node == "primary"
