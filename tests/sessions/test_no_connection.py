"""A replica that gives no connection: nothing was sent, so a session goes elsewhere, whatever it has begun."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import NoPrimary, NoReplica, Policy, Router
from lagwise._pools.driver import NotConnected
from lagwise.fastapi import ReadSession, lifespan
from lagwise.testing import Cluster
from tests.kit.application import Item, create_tables
from tests.kit.http import serving
from tests.kit.routers import LONG, in_rotation

ASKED = select(Item.name).where(Item.id == 1)
STRICT = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120, fall_back=False)
Way = Callable[[AsyncSession], Awaitable[Any]]


@pytest.fixture(scope="module")
async def apart() -> AsyncIterator[Cluster]:
    """A primary and a replica with one row, and a role of the application's own."""
    async with Cluster(replicas=1) as cluster:
        await create_tables(cluster)
        await cluster.primary.execute("CREATE ROLE app LOGIN PASSWORD 'app'; GRANT pg_monitor, pg_read_all_data TO app")
        await cluster.primary.execute("INSERT INTO item (id, name) VALUES (1, 'one')")
        await cluster.caught_up()
        yield cluster


def routed(cluster: Cluster, policy: Policy = LONG) -> Router:
    primary, replica = (make_url(node.url).set(username="app", password="app") for node in cluster.nodes.values())
    return Router(primary, {"replica-1": replica}, policy=policy)


async def settled(db: Router) -> None:
    """The replica is in rotation and its pool empty; that of the primary has a connection."""
    await in_rotation(db, "replica-1")
    async with db.read(primary=True) as session:
        await session.scalar(ASKED)
    # The monitor does not hear of refusals: the replica stays in rotation, and each session meets its own.
    db.pools["replica-1"].traffic.suspect = lambda _error: None


@asynccontextmanager
async def full(cluster: Cluster) -> AsyncIterator[None]:
    """No node has a place for a new connection (53300); those that there are go on."""
    await cluster.primary.execute("ALTER ROLE app CONNECTION LIMIT 0")
    await cluster.caught_up()
    try:
        yield
    finally:
        await cluster.primary.execute("ALTER ROLE app CONNECTION LIMIT -1")
        await cluster.caught_up()


async def begin(session: AsyncSession) -> Any:
    async with session.begin():
        return await session.scalar(ASKED)


async def begin_without_a_block(session: AsyncSession) -> Any:
    transaction = await session.begin()
    found = await session.scalar(ASKED)
    await transaction.rollback()
    return found


async def savepoint(session: AsyncSession) -> Any:
    async with session.begin_nested():
        return await session.scalar(ASKED)


async def savepoint_in_a_block(session: AsyncSession) -> Any:
    async with session.begin(), session.begin_nested():
        return await session.scalar(ASKED)


async def connection(session: AsyncSession) -> Any:
    return (await (await session.connection()).execute(ASKED)).scalar()


async def connection_in_a_block(session: AsyncSession) -> Any:
    async with session.begin():
        return await connection(session)


async def connection_of_a_mapper(session: AsyncSession) -> Any:
    taken = await session.connection(bind_arguments={"mapper": Item})
    return (await taken.execute(ASKED)).scalar()


async def stream(session: AsyncSession) -> Any:
    return [name async for name in await session.stream_scalars(ASKED)].pop()


async def stream_in_a_block(session: AsyncSession) -> Any:
    async with session.begin():
        return await stream(session)


async def run_sync(session: AsyncSession) -> Any:
    return await session.run_sync(lambda sync: sync.connection().execute(ASKED).scalar())


async def run_sync_in_a_block(session: AsyncSession) -> Any:
    async with session.begin():
        return await session.run_sync(lambda sync: sync.query(Item).one().name)


async def get(session: AsyncSession) -> Any:
    async with session.begin():
        return (await session.get_one(Item, 1)).name


async def merge(session: AsyncSession) -> Any:
    async with session.begin():
        return (await session.merge(Item(id=1))).name


async def refresh(session: AsyncSession) -> Any:
    async with session.begin():
        item = await session.get_one(Item, 1)
        await session.refresh(item)
        return item.name


WAYS: list[Way] = [
    begin, begin_without_a_block, savepoint, savepoint_in_a_block, connection, connection_in_a_block,
    connection_of_a_mapper, stream, stream_in_a_block, run_sync, run_sync_in_a_block, get, merge, refresh,
]  # fmt: skip


@pytest.mark.parametrize("snapshot", [False, True], ids=["plain", "snapshot"])
async def test_the_session_goes_elsewhere(apart: Cluster, snapshot: bool) -> None:
    """Every way to a connection leads to the primary, and what was begun goes on there."""
    async with routed(apart) as db:
        await settled(db)
        async with full(apart):
            for way in WAYS:
                async with db.read(snapshot=snapshot) as session:
                    chosen = session.info["lagwise.route"].node
                    found = await way(session)
                    told = way.__name__, chosen, found, session.info["lagwise.route"].node
                    assert told == (way.__name__, "replica-1", "one", "primary")


async def test_what_was_read_before_is_not_older(apart: Cluster) -> None:
    """A session that has read goes to the primary alone, in a block of its own, too."""
    async with routed(apart) as db:
        await settled(db)
        async with db.read() as session:
            assert await session.scalar(ASKED) == "one"
            await db.pools["replica-1"].reading.dispose()
            async with full(apart), session.begin():
                assert await session.scalar(ASKED) == "one"
                assert session.info["lagwise.route"].node == "primary"
                assert await session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on"


async def test_what_cannot_go_elsewhere_is_named_likewise(apart: Cluster) -> None:
    """A connection to an engine that the caller names, and a flush, are not routed again: they raise `NoReplica`."""
    async with routed(apart) as db:
        await settled(db)
        engine = db.pools["replica-1"].reads
        async with full(apart), db.read() as session:
            with pytest.raises(NoReplica) as met:
                await session.connection(bind_arguments={"bind": engine})
            assert isinstance(met.value, NotConnected)
        async with full(apart), db.read() as session:
            session.add(Item(name="never"))
            with pytest.raises(NoReplica):
                await session.flush()


async def test_a_primary_that_gives_none_is_no_primary(apart: Cluster) -> None:
    """A read that needs the primary, and finds it full, has no other node: `NoPrimary`, and so is what it met there."""
    async with Router(make_url(apart.primary.url).set(username="app", password="app"), policy=LONG) as db:
        async with db.write() as session:
            await session.scalar(ASKED)
        async with full(apart):
            async with db.read(primary=True) as session:
                with pytest.raises((NoPrimary, NoReplica)):
                    await begin(session)
            async with db.read(primary=True) as session:
                with pytest.raises(NoPrimary):
                    await session.connection(bind_arguments={"bind": db.pools["primary"].reads})


async def test_an_endpoint_answers_503(apart: Cluster) -> None:
    """Whatever an endpoint's session has begun: the client is told to try again, and this is no mistake of the code."""
    db = routed(apart, STRICT)
    app = FastAPI(lifespan=lifespan(db))

    for way in WAYS:

        def endpoint(way: Way) -> Callable[[AsyncSession], Awaitable[Any]]:
            async def answer(session: ReadSession) -> Any:
                return await way(session)

            return answer

        app.get(f"/{way.__name__}")(endpoint(way))

    @app.get("/flush")
    async def flush(session: ReadSession) -> None:
        session.add(Item(name="never"))
        await session.flush()

    async with serving(app) as client:
        await settled(db)
        async with full(apart):
            for path in [*(way.__name__ for way in WAYS), "flush"]:
                answer = await client.get(f"/{path}")
                assert (path, answer.status_code, answer.headers.get("retry-after")) == (path, 503, "1")


async def test_a_savepoint_is_not_left_behind(apart: Cluster) -> None:
    """A connection that breaks in a savepoint of the caller's: the statement runs nowhere else, as in any block."""
    async with routed(apart) as db:
        await settled(db)
        breaks = text("SELECT pg_terminate_backend(pg_backend_pid()) FROM pg_is_in_recovery() AS replica WHERE replica")
        with pytest.raises(DBAPIError):
            async with db.read() as session, session.begin_nested():
                await session.execute(breaks)
