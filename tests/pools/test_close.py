"""Closing ends within a bound, also when nobody answers any more."""

import asyncio

from lagwise.testing import Cluster
from tests.kit.pools import pools_of, take


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


async def test_pools_open_again(cluster: Cluster) -> None:
    """What was closed can be used anew, with engines of its own."""
    pools = pools_of(cluster.primary.url)
    for _ in range(2):
        for engine in (pools.reads, pools.writes):
            connection = await take(engine)
            assert await connection.ask("SELECT 1") == 1
            await connection.close()
        await pools.close(2.0)
