"""AUTOCOMMIT lets SET survive the session: nothing of one request is found by the next."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from lagwise import Router
from lagwise.testing import Cluster
from tests.kit.routers import LONG, catalog_read, in_rotation, nothing_is_asked
from tests.kit.traces import CLEAN, STATE, TRACES


async def state(session: AsyncSession) -> tuple[object, ...]:
    # Under AUTOCOMMIT, on a replica, each statement is a transaction of its own, and begins at its own time.
    times = {(await session.execute(text("SELECT pg_is_in_recovery(), now()"))).one() for _ in range(2)}
    left_open = len(times) == 1 and all(on_replica for on_replica, _ in times)
    return (*(await session.execute(STATE)).one(), left_open)


@pytest.fixture(params=["on a replica", "on the primary", "an engine of the application's"])
async def reading(request: pytest.FixtureRequest, cluster: Cluster) -> AsyncIterator[Router]:
    """A Router whose reads share three connections."""
    if request.param == "on the primary":
        async with Router(cluster.primary.url, policy=LONG, pool_size=3) as db:
            yield db
        return
    url = cluster.replicas[0].url
    engine = create_async_engine(url, pool_size=3, max_overflow=0)
    replica = engine if "engine" in request.param else url
    async with Router(cluster.primary.url, [replica], policy=LONG, pool_size=3) as db:
        await in_rotation(db, "replica-1")
        yield db
    await engine.dispose()


async def test_nothing_leaks_from_one_session_to_the_next(reading: Router) -> None:
    """200 interleaved sessions on 3 connections, each leaving something behind: the next finds nothing."""
    kinds = itertools.cycle(TRACES.values())

    async def one(number: int) -> tuple[object, ...]:
        async with reading.read() as session:
            found = await state(session)
            await session.execute(text(next(kinds).format(n=number)))
            return found

    found = await asyncio.gather(*map(one, range(200)))
    assert {CLEAN} == set(found)


async def test_two_routers_share_an_engine_and_one_is_closed(cluster: Cluster) -> None:
    """The other goes on cleaning up."""
    primary, shared = cluster.primary.url, create_async_engine(cluster.replicas[0].url, pool_size=1, max_overflow=0)
    async with Router(primary, [shared], policy=LONG) as db:
        async with Router(primary, [shared], policy=LONG) as other:
            for each in (db, other):
                await in_rotation(each, "replica-1")
                async with each.read() as session:
                    before = await state(session)
        for number, trace in enumerate(TRACES.values()):
            async with db.read() as session:
                await session.execute(text(trace.format(n=number)))
            async with db.read() as session:
                assert await state(session) == before, trace
    await shared.dispose()


async def test_the_traces_would_be_found(cluster: Cluster) -> None:
    """On a bare AUTOCOMMIT engine the next session meets every one of them."""
    engine = create_async_engine(cluster.replicas[0].url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    for number, trace in enumerate(TRACES.values()):
        async with AsyncSession(engine) as session:
            before = await state(session)
        async with AsyncSession(engine) as session:
            await session.execute(text(trace.format(n=number)))
        async with AsyncSession(engine) as session:
            assert before != await state(session), trace
            await session.execute(text("ROLLBACK"))
            await session.execute(text("RESET ROLE"))
            await session.execute(text("SET lagwise.tenant = ''"))
    await engine.dispose()


async def test_a_reset_that_fails_costs_the_connection_alone(cluster: Cluster) -> None:
    """The node goes away before what was left can be undone: the reader has its answer, and the next one is well."""
    async with Router(cluster.primary.url, [cluster["replica-1"].url], policy=LONG, pool_size=1) as db:
        await in_rotation(db, "replica-1")
        async with db.read() as session:
            before = await session.scalar(text("SELECT pg_backend_pid()"))
            await session.execute(text("SET search_path = tenant"))
            await cluster.cut("replica-1")
        assert db.pools["replica-1"].load() == 0
        await cluster.heal()
        async with db.read() as session:
            assert await session.scalar(text("SELECT pg_backend_pid()")) != before
            assert await state(session) == CLEAN


async def test_plain_selects_still_cost_one_round_trip(cluster: Cluster) -> None:
    """Cleaning up is for those who left something; afterwards a plain select is 1 trip again."""
    async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=LONG, pool_size=1) as db:
        await in_rotation(db, "replica-1")

        async def run(statement: str) -> int:
            before = cluster.replicas[0].proxy.round_trips
            async with db.read() as session:
                await session.execute(text(statement))
            return cluster.replicas[0].proxy.round_trips - before

        await run("SELECT count(*) FROM item")
        await catalog_read(db)
        await nothing_is_asked(cluster)
        for _ in range(2):
            await run("SELECT count(*) FROM item")
        assert await run("SELECT count(*) FROM item") == 1
        assert await run("SET search_path = tenant") >= 2
        assert await run("SELECT count(*) FROM item") == 1


async def test_a_failed_statement_leaves_no_transaction(cluster: Cluster) -> None:
    """Arguments the driver refuses, a cursor it cannot open: the next session begins anew, and no lock stays."""
    async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=LONG, pool_size=1) as db:
        await in_rotation(db, "replica-1")
        for number in range(2):
            async with db.read() as session:
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                with pytest.raises(SQLAlchemyError):
                    if number:
                        await session.stream(text("SELECT id FROM nowhere"))
                    else:
                        await session.execute(text("SELECT id FROM item WHERE id = :id"), {"id": "no number"})
            held = "SELECT count(*) FROM pg_locks WHERE pid = $1"
            assert await cluster.replicas[0].fetchval(held, pid) == 0
            async with db.read(snapshot=True) as session:
                assert await session.scalar(text("SELECT pg_backend_pid()")) == pid


async def test_a_cancelled_session_leaves_nothing_either(cluster: Cluster) -> None:
    """Cancelled between its SET and its end, a session still does not hand its settings on."""
    async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=LONG, pool_size=1) as db:
        await in_rotation(db, "replica-1")
        reached = asyncio.Event()

        async def interrupted() -> None:
            async with db.read() as session:
                await session.execute(text("SET search_path = tenant"))
                reached.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(interrupted())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with db.read() as session:
            assert await state(session) == CLEAN
