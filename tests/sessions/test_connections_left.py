"""What is left of a connection without a session when it ends, well or badly: nothing the next one would find."""

import asyncio
import gc
import itertools

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from lagwise import Causality, NotOpen, Policy, Router
from lagwise.testing import Cluster
from tests.kit.connections import KINDS, on_replica, reading
from tests.kit.routers import LONG, busy, in_rotation, router
from tests.kit.traces import CLEAN, STATE, TRACES

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("where", ["on a replica", "on the primary", "an engine", "an engine without a pool"])
async def test_nothing_leaks_to_the_next(cluster: Cluster, kind: str, where: str) -> None:
    """120 interleaved uses of 3 connections, each leaving something behind: the next finds nothing."""
    url, given = cluster.replicas[0].url, None
    if "engine" in where:
        given = create_async_engine(url, poolclass=NullPool) if "without" in where else create_async_engine(url)
    replicas: list[str | AsyncEngine] = [] if where == "on the primary" else [given if given is not None else url]
    kinds = itertools.cycle(TRACES.values())
    async with Router(cluster.primary.url, replicas, policy=LONG, pool_size=3) as db:
        await in_rotation(db, *["replica-1"][: len(replicas)])

        async def one(number: int) -> tuple[object, ...]:
            async with reading(db, kind) as ask:
                found = await ask(f"SELECT ROW(s.*) FROM ({STATE}) AS s")
                await ask(next(kinds).format(n=number))
                return tuple(found)

        assert {CLEAN[:-1]} == set(await asyncio.gather(*map(one, range(120))))
        async with reading(db, kind) as ask:
            times = {await ask("SELECT now()") for _ in range(2)}
        assert (len(times), busy(db)) == (2, 0)  # no BEGIN is still open
    if given is not None:
        await given.dispose()


async def test_a_full_pool_and_a_place_on_the_primary(cluster: Cluster, kind: str) -> None:
    """The named error of a full pool; a read that could not begin gives its place in the fall-back budget back."""
    policy = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120, fall_back_limit=2)
    async with router(cluster, policy, pool_size=1, pool_timeout=0.05) as db:
        for replica in cluster.replicas:
            db.drain(replica.name)
        async with db.read() as holding:
            await holding.connection()

            async def another() -> None:
                async with reading(db, kind) as ask:
                    await ask("SELECT 1")

            for _ in range(3):
                with pytest.raises(PoolTimeout, match="no connection to primary became free in time: 1 of 1"):
                    await asyncio.create_task(another())
        async with reading(db, kind) as ask:
            await ask("SELECT 1")


async def test_a_router_that_is_closed_first(cluster: Cluster, kind: str) -> None:
    """Whoever holds a connection meanwhile ends without an error; afterwards nobody gets one."""
    db = router(cluster)
    async with db:
        holding = reading(db, kind)
        ask = await holding.__aenter__()
        await ask("SELECT 1")
    await holding.__aexit__(None, None, None)
    gc.collect()  # a driver's connection that nobody closed would warn
    with pytest.raises(NotOpen):
        async with reading(db, kind):
            pass


async def test_cut_off_at_any_moment_it_leaves_no_transaction(cluster: Cluster, kind: str) -> None:
    """Also between parsing and running, which leaves the server in a transaction: the next use begins anew."""
    async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=LONG, pool_size=1) as db:
        await in_rotation(db, "replica-1")

        async def read(turn: int) -> None:
            async with reading(db, kind) as ask:
                await ask(f"SELECT {turn} FROM item")  # a new text, to be parsed

        for turn in range(200):
            task = asyncio.create_task(read(turn))
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            async with reading(db, kind, snapshot=True) as ask:
                assert await on_replica(ask)


async def test_a_statement_that_is_wrong_is_the_callers(cluster: Cluster, db: Router, kind: str) -> None:
    """The database's own error, as SQLAlchemy or asyncpg raise it, and nothing is tried elsewhere."""
    with Causality() as seen:
        async with reading(db, kind) as ask:
            with pytest.raises((asyncpg.PostgresError, SQLAlchemyError), match="division"):
                await ask("SELECT 1 / 0")
            with pytest.raises((asyncpg.DataError, SQLAlchemyError), match="query argument"):
                await ask("SELECT id FROM item WHERE id = $1", "no number")
        assert len(seen.routes) == 1
    for replica in cluster.replicas:
        held = "SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass"
        assert await replica.fetchval(held) == 0  # of the transaction that asyncpg does not know of
