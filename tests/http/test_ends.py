"""How a dependency's session ends: with the endpoint, whatever stands in between, and for good."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Policy, RoutingError
from lagwise.fastapi import ReadAsyncpg, ReadConnection, ReadSession, WriteAsyncpg, WriteSession, reads, writes
from lagwise.testing import Cluster
from tests.kit.http import Socket, application, committed, http, insert, opened, serving
from tests.kit.routers import router, steady

SWALLOWED = "by a swallowed error"
DEPENDENCIES: dict[str, Any] = {
    "WriteSession": WriteSession,
    "WriteAsyncpg": WriteAsyncpg,
    "writes()": Annotated[AsyncSession, writes()],
}


async def put(given: Any, name: str) -> None:
    """Insert by session or by the driver's connection."""
    if isinstance(given, AsyncSession):
        await insert(given, name)
    else:
        await given.execute("INSERT INTO item (name) VALUES ($1)", name)


@pytest.mark.parametrize("kind", DEPENDENCIES)
async def test_what_an_endpoint_wrote_before_it_raised_is_not_committed(cluster: Cluster, kind: str) -> None:
    """Also when a dependency between it and the session swallows the exception: 500, no token, no row."""
    db = steady(cluster)
    app, dependency = application(db), DEPENDENCIES[kind]

    async def swallowing(given: dependency) -> AsyncIterator[Any]:  # type: ignore[valid-type]
        with suppress(ValueError):
            yield given

    @app.post("/")
    async def create(given: Annotated[Any, Depends(swallowing, scope="function")], raising: bool) -> None:
        await put(given, SWALLOWED + kind)
        if raising:
            raise ValueError

    async with serving(app) as client:
        raised = await client.post("/?raising=1")
        assert (raised.status_code, "set-cookie" in raised.headers) == (500, False)
        assert await committed(cluster, SWALLOWED + kind) == 0
        assert (await client.post("/?raising=0")).status_code == 200
        assert await committed(cluster, SWALLOWED + kind) == 1


async def test_an_exception_around_the_request_is_none_of_the_endpoints(cluster: Cluster) -> None:
    """A server, or a test, that calls the application while it handles an exception of its own: committed."""
    db = steady(cluster)
    app = application(db)

    @app.post("/")
    async def create(session: WriteSession) -> None:
        await insert(session, "while handling")

    async with serving(app) as client:
        try:
            raise ValueError
        except ValueError:
            assert (await client.post("/")).status_code == 200
    assert await committed(cluster, "while handling") == 1


async def test_a_websocket_may_swallow(cluster: Cluster) -> None:
    """A socket whose end a dependency handles has ended well: what it wrote is committed."""
    db = steady(cluster)
    app = application(db)

    async def handling(session: WriteSession) -> AsyncIterator[AsyncSession]:
        with suppress(ValueError):
            yield session

    @app.websocket("/ws")
    async def talk(session: Annotated[AsyncSession, Depends(handling, scope="function")], socket: Any = None) -> None:
        await insert(session, "by a socket that ended")
        raise ValueError

    async with opened(app) as running, Socket(running, "/ws") as socket:
        await socket._task
    assert await committed(cluster, "by a socket that ended") == 1


ENDED: dict[str, tuple[Any, Any, str]] = {
    "ReadSession": (ReadSession, lambda s: s.execute(text("SELECT 1")), "async with db.read"),
    "WriteSession": (WriteSession, lambda s: s.execute(text("SELECT 1")), "async with db.read"),
    "reads()": (
        Annotated[AsyncSession, reads(primary=True)],
        lambda s: s.scalar(text("SELECT 1")),
        "async with db.read",
    ),
    "get": (WriteSession, lambda s: s.connection(), "async with db.read"),
    "begin": (WriteSession, lambda s: s.begin().start(), "async with db.read"),
    "ReadConnection": (ReadConnection, lambda c: c.execute(text("SELECT 1")), "closed"),
    "ReadAsyncpg": (ReadAsyncpg, lambda c: c.fetchval("SELECT 1"), "async with db.read.asyncpg"),
    "WriteAsyncpg": (WriteAsyncpg, lambda c: c.execute("SELECT 1"), "async with db.read.asyncpg"),
}


@pytest.mark.parametrize("kind", ENDED)
async def test_used_after_its_end_it_is_an_error(cluster: Cluster, kind: str) -> None:
    """In a stream, which outlives it: no second life that nobody ends, and the message names the pattern."""
    db = steady(cluster)
    app = application(db)
    dependency, use, words = ENDED[kind]
    errors: list[str] = []

    async def stream(given: Any) -> AsyncIterator[str]:
        try:
            await use(given)
        except Exception as error:
            errors.append(str(error))
        yield "sent"

    @app.get("/")
    async def show(given: dependency) -> StreamingResponse:  # type: ignore[valid-type]
        return StreamingResponse(stream(given))

    async with serving(app) as client:
        assert (await client.get("/")).text == "sent"
        assert len(errors) == 1
        assert words in errors[0]
        assert sum(pools.writing.sync_engine.pool.checkedout() for pools in db.pools.values()) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("by_name", [False, True])
async def test_a_background_task_that_was_given_the_session_is_refused(cluster: Cluster, by_name: bool) -> None:
    """It would run when the session is closed. Refused before anything is committed or answered: 500."""
    db = steady(cluster)
    app = application(db)

    async def task(session: AsyncSession) -> None:
        raise AssertionError("never run")

    @app.post("/")
    async def create(session: WriteSession, tasks: BackgroundTasks) -> None:
        await insert(session, "with a task")
        if by_name:
            tasks.add_task(task, session=session)
        else:
            tasks.add_task(task, session)

    async with opened(app) as running, http(running, raising=True) as client:
        with pytest.raises(RoutingError, match=r"background task.*async with db.write.begin\(\) as session"):
            await client.post("/")
    assert await committed(cluster, "with a task") == 0


async def test_a_full_pool_is_a_503(cluster: Cluster) -> None:
    """Like any other "not now": whichever dependency had to wait, the client is told when to come back."""
    db = router(cluster, Policy(probe_timeout=5), pool_size=1, max_overflow=0, pool_timeout=0.05)
    app = application(db)
    taken, free = asyncio.Event(), asyncio.Event()

    @app.post("/hold")
    async def hold(session: WriteSession) -> None:
        await insert(session, "full")
        taken.set()
        await free.wait()

    @app.post("/session")
    async def by_session(session: WriteSession) -> None:
        await insert(session, "full")

    @app.post("/asyncpg")
    async def by_driver(connection: WriteAsyncpg) -> None:
        raise AssertionError("never reached")

    async with serving(app) as client:
        holding = asyncio.create_task(client.post("/hold"))
        await taken.wait()
        answers = [await client.post(path) for path in ("/session", "/asyncpg")]
        free.set()
        assert (await holding).status_code == 200
    assert [(answer.status_code, answer.headers.get("retry-after")) for answer in answers] == [(503, "1")] * 2
