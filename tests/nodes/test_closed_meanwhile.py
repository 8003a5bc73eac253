"""A session waits for a node while its Router is closed."""

import asyncio

import pytest
from sqlalchemy import text

from lagwise import Causality, NotOpen, Policy
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import in_rotation, router


async def test_it_hears_so_and_makes_no_pool_anew(cluster: Cluster) -> None:
    """Reads that wait for a replica end at once, and no engine is there afterwards."""
    db = router(cluster, Policy(max_lag=60, sticky_window=60, catch_up=60, probe_timeout=5))
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('awaited')"))

        async def read() -> None:
            with Causality(str(seen.token)):
                async with db.read() as session:
                    await session.execute(text("SELECT 1"))

        waiting = [asyncio.create_task(read()) for _ in range(5)]
        await wait_until(lambda: len(db._nodes.monitor._floors) == len(waiting), what="all of them wait")
    async with asyncio.timeout(20):
        for task in waiting:
            with pytest.raises(NotOpen):
                await task
    assert not any({"reads", "writes", "reading", "writing"} & set(vars(pools)) for pools in db.pools.values())
