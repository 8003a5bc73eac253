"""When no replica may serve, the reads that fall back to the primary do not stand in the way of its writes."""

import asyncio
from contextlib import AsyncExitStack

from sqlalchemy import text

from lagwise import Policy, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import router

READERS = 8


async def test_reads_that_fall_back_wait_apart_from_writes(cluster: Cluster) -> None:
    """Pools of two, eight readers on the primary of which six wait: no write has waited, each has its connection."""
    policy = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120)
    async with router(cluster, policy, pool_size=2) as db:
        for replica in cluster.replicas:
            db.drain(replica.name)
        async with AsyncExitStack() as holding:
            for _ in range(2):
                held = await holding.enter_async_context(db.read(snapshot=True))
                await held.execute(text("SELECT 1"))
                assert held.info["lagwise.route"].fell_back
            waiting = [asyncio.create_task(_read(db)) for _ in range(READERS - 2)]
            counters = db.pools["primary"].tallies
            await wait_until(lambda: counters["reading"].waiting == READERS - 2, what="six readers wait")
            for _ in range(20):
                async with db.write.begin() as session:
                    await session.execute(text("INSERT INTO item (name) VALUES ('not crowded out')"))
            assert (counters["writing"].waits, counters["writing"].timeouts) == (0, 0)
            assert counters["reading"].waiting == READERS - 2
        assert await asyncio.gather(*waiting) == [1] * (READERS - 2)


async def _read(db: Router) -> int | None:
    async with db.read() as session:
        found: int | None = await session.scalar(text("SELECT 1"))
        return found
