"""Closing ends within a bound, also when nobody answers any more."""

import asyncio
import gc
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy.pool import NullPool

from lagwise import NotOpen
from lagwise.testing import Cluster, wait_until
from tests.kit.pools import ROLES, pools_of, take


async def test_silent_servers_are_cut_off(cluster: Cluster) -> None:
    """Eight idle connections to a black hole: all say goodbye at once; SQLAlchemy's dispose waits for the first."""
    pools = pools_of(cluster.primary.url)
    taken = [await take(engine) for engine in (pools.reads, pools.writes) for _ in range(2)]
    taken += await asyncio.gather(*(take(engine) for engine in (pools.reads, pools.writes) for _ in range(2)))
    drivers = [one.connection.connection.driver_connection for one in taken]
    for one in taken:
        await one.close()
    await cluster.black_hole("primary")
    try:
        async with asyncio.timeout(8 * 0.5):  # one after the other would take as long as this, or for ever
            await pools.close(0.5)
    finally:
        await cluster.heal()
    assert all(driver.is_closed() for driver in drivers)


@ROLES
async def test_a_session_in_line_hears_that_the_pool_was_closed(cluster: Cluster, role: str) -> None:
    """SQLAlchemy would let it connect anew, to a pool that nobody closes any more."""
    pools = pools_of(cluster.primary.url, pool_size=1)
    engine = getattr(pools, role)
    held = await take(engine)
    waiting = asyncio.create_task(take(engine))
    await wait_until(lambda: engine.counters.waiting, what="a session in line")
    await pools.close(2.0)
    with pytest.raises(NotOpen, match="before this session got a connection to node"):
        await waiting
    driver = held.connection.connection.driver_connection
    assert not driver.is_closed()
    await held.close()
    assert driver.is_closed()  # nobody would close it in a pool that is disposed of


@ROLES
async def test_a_session_that_connects_hears_it_too(cluster: Cluster, role: str) -> None:
    """The server is silent: asyncpg alone would wait for a minute."""
    pools = pools_of(cluster.primary.url, pool_size=1)
    engine = getattr(pools, role)
    await cluster.black_hole("primary")
    try:
        waiting = asyncio.create_task(take(engine))
        await wait_until(lambda: engine.attempts._running, what="a connection under way")
        await pools.close(0.5)
        with pytest.raises(NotOpen):
            await waiting
    finally:
        await cluster.heal()


OVERFLOW: dict[str, Any] = {"pool_size": 1, "max_overflow": 4}


@ROLES
@pytest.mark.parametrize("options", [OVERFLOW, {"poolclass": NullPool}], ids=["overflow", "NullPool"])
async def test_a_connection_that_its_pool_discards_is_forgotten(
    cluster: Cluster, role: str, options: dict[str, Any]
) -> None:
    """However many come and go: closed connections, and what was known of them, do not stay in memory."""
    pools = pools_of(cluster.primary.url, **options)
    engine = getattr(pools, role)
    before = closed_connections()
    for _ in range(5):
        taken = [await take(engine) for _ in range(5)]
        for one in taken:
            await one.close()
    del taken, one
    assert closed_connections() - before <= 2
    await pools.close(2.0)


def closed_connections() -> int:
    """The driver's connections in memory that are closed."""
    gc.collect()
    return sum(issubclass(type(one), asyncpg.Connection) and one.is_closed() for one in gc.get_objects())


async def test_pools_open_again(cluster: Cluster) -> None:
    """What was closed can be used anew, with engines of its own."""
    pools = pools_of(cluster.primary.url)
    for _ in range(2):
        for engine in (pools.reads, pools.writes):
            connection = await take(engine)
            assert await connection.ask("SELECT 1") == 1
            await connection.close()
        await pools.close(2.0)
