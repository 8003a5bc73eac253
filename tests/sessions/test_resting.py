"""A plain read holds a connection only while its statement runs: requests that wait for something else hold none."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality, Policy, Router, RoutingError
from lagwise.fastapi import CausalityMiddleware, ReadAsyncpg, ReadSession, WriteSession, lifespan, reads
from lagwise.testing import Cluster, wait_until
from tests.kit.application import SECRET, Item
from tests.kit.routers import LONG, busy, in_rotation, router

REQUESTS = 30
WAYS = ["session", "begin", "Core", "asyncpg"]
ASK = "SELECT count(*) FROM item"


@asynccontextmanager
async def reading(db: Router, way: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """A read of this kind, for a statement at a time."""
    if way == "asyncpg":
        async with db.read.asyncpg() as driver:
            yield lambda: driver.fetchval(ASK)
    elif way == "Core":
        async with db.read.connect() as core:
            yield lambda: core.scalar(text(ASK))
    else:
        async with db.read() if way == "session" else db.read.begin() as session:
            yield lambda: session.scalar(text(ASK))


@asynccontextmanager
async def small(cluster: Cluster, replicas: int, **options: Any) -> AsyncIterator[Router]:
    """A Router with pools of two, on so many replicas."""
    urls = {node.name: node.url for node in cluster.replicas[:replicas]}
    async with Router(cluster.primary.url, urls, policy=LONG, pool_size=2, **options) as db:
        await in_rotation(db, *urls)
        yield db


def waits(db: Router) -> int:
    """How often a session has waited for a connection, at all pools."""
    return sum(counters.waits for pools in db.pools.values() for counters in pools.tallies.values())


@pytest.mark.parametrize("replicas", [0, 2])
@pytest.mark.parametrize("way", WAYS)
async def test_requests_that_wait_hold_no_connection(cluster: Cluster, way: str, replicas: int) -> None:
    """30 read, wait at a gate and read again: meanwhile every connection is in its pool, and none waits for one."""
    gate, turn = asyncio.Event(), asyncio.Lock()
    at_the_gate = 0

    async def request(db: Router) -> Any:
        nonlocal at_the_gate
        async with reading(db, way) as ask:
            async with turn:  # one statement at a time needs one connection
                before = await ask()
            at_the_gate += 1
            await gate.wait()
            async with turn:
                return await ask() - before

    async with small(cluster, replicas) as db:
        requests = [asyncio.create_task(request(db)) for _ in range(REQUESTS)]
        await wait_until(lambda: at_the_gate == REQUESTS, what="all have read")
        assert busy(db) == 0
        gate.set()
        assert await asyncio.gather(*requests) == [0] * REQUESTS
        assert waits(db) == 0
        assert sum(pools.tallies["reading"].opened for pools in db.pools.values()) <= 2 * max(replicas, 1)


async def test_a_session_that_keeps_its_connection_makes_others_wait(cluster: Cluster) -> None:
    """What plain sessions do: with two that hold theirs at a gate, the third gets none."""
    async with small(cluster, 0, pool_timeout=0.05) as db:

        async def third() -> None:
            async with db.read() as session:
                await session.scalar(text(ASK))

        async with db.read() as one, db.read() as two:
            for session in (one, two):
                await session.connection()
                await session.scalar(text(ASK))
            assert busy(db) == 2
            with pytest.raises(PoolTimeout):
                await asyncio.create_task(third())
            assert waits(db) == 1


async def user(session: ReadSession) -> str:
    """Who asks, as an authentication reads it."""
    return str(await session.scalar(text("SELECT 'ann'")))


async def found(session: AsyncSession) -> int:
    """How many items there are."""
    return await session.scalar(text(ASK)) or 0


async def counted(session: Annotated[AsyncSession, reads(max_staleness=5.0)]) -> int:
    """Likewise, in a session of its own."""
    return await found(session)


User = Annotated[str, Depends(user)]
Counted = Annotated[int, Depends(counted)]


def application(db: Router) -> FastAPI:
    """Endpoints with two sessions each."""
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=SECRET)

    @app.post("/write")
    async def write(session: WriteSession, who: User) -> None:
        session.add(Item(name=who))

    @app.get("/twice")
    async def twice(session: ReadSession, who: User, more: Counted) -> int:
        assert who
        return more + await found(session)

    @app.get("/asyncpg")
    async def both(session: ReadSession, connection: ReadAsyncpg, who: User) -> int:
        assert who
        return await found(session) + int(await connection.fetchval(ASK)) + await found(session)

    return app


@pytest.mark.parametrize("state", ["well", "lagging", "gone"])
async def test_two_sessions_in_one_request(cluster: Cluster, state: str) -> None:
    """Authentication and write, two reads, read and asyncpg, 100 at a time over pools of 5: none fails."""
    policy = Policy(probe_interval=0.1, probe_timeout=5, catch_up=0.02)
    db = router(cluster, policy, pool_size=5, pool_timeout=30)
    app = application(db)
    async with app.router.lifespan_context(app):
        await in_rotation(db, "replica-1", "replica-2")
        for replica in cluster.replicas:
            if state == "lagging":
                await cluster.set_apply_delay(replica, 0.5)
            elif state == "gone":
                await cluster.stop(replica)
        if state == "gone":
            await wait_until(lambda: not db.view.rotation, what="the replicas are gone")
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as http:
            await http.post("/write")
            calls = [("POST", "/write"), ("GET", "/twice"), ("GET", "/asyncpg"), ("POST", "/write")]
            answers = await asyncio.gather(*(http.request(*calls[n % 4]) for n in range(100)))
        assert Counter(answer.status_code for answer in answers) == {200: 100}
        assert busy(db) == 0


async def pair(db: Router, number: int) -> None:
    """A request with two sessions that write at once."""
    with Causality():
        async with db.write.begin() as one, db.write.begin() as two:
            one.add(Item(name=f"one of {number}"))
            await one.flush()
            two.add(Item(name=f"two of {number}"))
            await two.flush()


async def test_two_write_sessions_in_one_request_are_served(cluster: Cluster) -> None:
    """Each holds one connection of the pool and waits for another: the reserve lets one after the other end."""
    async with small(cluster, 0) as db:
        await asyncio.wait_for(asyncio.gather(*(pair(db, number) for number in range(20))), 60)
        assert db.pools["primary"].tallies["writing"].timeouts == 0
        assert waits(db) > 0
        assert busy(db) == 0


async def test_a_third_is_an_error_at_once_that_names_what_is_held(cluster: Cluster) -> None:
    """Not after `pool_timeout`: the sessions of one request would wait for each other."""
    async with small(cluster, 0, pool_timeout=600) as db:
        with Causality():
            async with db.write() as one, db.write() as two, db.write() as three:
                for session in (one, two):
                    await session.execute(text("SELECT 1"))
                with pytest.raises(RoutingError, match="holds 2 connections to primary") as caught:
                    await three.execute(text("SELECT 1"))
                assert "2 of the pool" in str(caught.value)
        await pair(db, 0)
        assert busy(db) == 0
