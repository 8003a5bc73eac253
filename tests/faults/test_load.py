"""Faults under load over HTTP, and recovery conflicts in series."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import select, text

from lagwise import Policy, Router
from lagwise.testing import Cluster
from lagwise.testing.replication import configure
from tests.kit.application import Item, routed
from tests.kit.load import errors, many
from tests.kit.numbers import enough
from tests.kit.routers import in_rotation, router
from tests.kit.serving import client, served


async def test_the_budget_over_http(cluster: Cluster) -> None:
    """Both replicas down at full load: the budget is served, the rest get 503 with Retry-After; then all is well."""
    limit = 3
    policy = Policy(probe_interval=0.1, probe_timeout=1, fall_back_limit=limit)
    created = await cluster.primary.fetchval("INSERT INTO item (name) VALUES ('budget') RETURNING id")
    await cluster.caught_up()
    db = router(cluster, policy)
    async with served(routed(db)) as url, client(url) as http:
        await in_rotation(db, "replica-1", "replica-2")
        for replica in cluster.replicas:
            await cluster.kill(replica)
        await in_rotation(db)
        most = 0

        async def get(_: int) -> int:
            nonlocal most
            answer = await http.get(f"/items/{created}")
            most = max(most, fallen_back(db))
            assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
            return answer.status_code

        cluster.primary.proxy.latency = 0.005  # so that reads overlap
        statuses = Counter(await many(300, get, at_once=30))
        cluster.primary.proxy.latency = 0.0
        assert set(statuses) == {200, 503}
        assert most <= limit
        for replica in cluster.replicas:
            await cluster.start(replica)
        await in_rotation(db, "replica-1", "replica-2")
        assert Counter(await many(100, get, at_once=30)) == {200: 100}


async def test_recovery_conflicts_in_series(cluster: Cluster) -> None:
    """max_standby_streaming_delay=0 and VACUUM after VACUUM on the primary: no read that starts fails."""
    for replica in cluster.replicas:
        await configure(replica, "max_standby_streaming_delay", "0")
    conflicts = (
        "SELECT confl_snapshot + confl_bufferpin + confl_lock FROM pg_stat_database_conflicts WHERE datname = 'app'"
    )

    async def met() -> int:
        return sum([await replica.fetchval(conflicts) for replica in cluster.replicas])

    before = await met()
    try:
        async with router(cluster, Policy(probe_timeout=5)) as db:
            await in_rotation(db, "replica-1", "replica-2")
            stop = asyncio.Event()

            async def vacuuming() -> None:
                while not stop.is_set():
                    await cluster.primary.execute("INSERT INTO item (name) SELECT 'dead' FROM generate_series(1, 500)")
                    await cluster.primary.execute("DELETE FROM item WHERE name = 'dead'")
                    await cluster.primary.execute("VACUUM item")

            async def read(_: int) -> None:
                async with db.read() as session:
                    await session.execute(select(Item.id, text("pg_sleep(0.0001)")).limit(200))

            vacuum = asyncio.create_task(vacuuming())
            results = await many(enough(100, 400), read, at_once=10)
            while len(results) < 400 and await met() < before + 10:
                results += await many(100, read, at_once=10)
            stop.set()
            await vacuum
        assert errors(results) == []
        assert await met() > before
    finally:
        for replica in cluster.replicas:
            await configure(replica, "max_standby_streaming_delay", "30s")


def fallen_back(db: Router) -> int:
    """Connections of the primary's pool that are checked out, the only ones there are here."""
    return int(db.pools["primary"].writing.sync_engine.pool.checkedout())  # type: ignore[attr-defined]


@pytest.mark.parametrize("at_once", [1, 16, 64])
async def test_no_connection_is_opened_once_warm(cluster: Cluster, at_once: int) -> None:
    """With the Router's own pool settings; SQLAlchemy's 5 + 10 overflow close and open them all the time."""

    async def opened_by(db: Router) -> int:
        async def read(_: int) -> None:
            async with db.read() as session:
                await session.execute(text("SELECT 1"))

        def opened() -> int:
            return sum(counters.opened for pools in db.pools.values() for counters in pools.tallies.values())

        await in_rotation(db, "replica-1", "replica-2")
        await many(enough(200, 500), read, at_once=64)
        warm = opened()
        assert errors(await many(enough(200, 500), read, at_once=at_once)) == []
        return opened() - warm

    async with router(cluster) as db:
        assert await opened_by(db) == 0
    async with router(cluster, pool_size=5, max_overflow=10) as db:
        assert (await opened_by(db) > 0) >= (at_once == 64)


@pytest.mark.parametrize("write", [False, True], ids=["reads", "writes"])
async def test_who_waits_for_a_connection_gets_one_in_turn(cluster: Cluster, write: bool) -> None:
    """Five clients in loops share one connection: nobody takes it again and again before the others had it."""
    counts = Counter[int]()
    async with router(cluster, pool_size=1) as db:
        await in_rotation(db, "replica-1", "replica-2")
        db.drain("replica-2")

        async def loop(number: int) -> None:
            while counts.total() < 500:
                async with (db.write if write else db.read)() as session:
                    await session.execute(text("SELECT 1"))
                counts[number] += 1

        await asyncio.gather(*map(loop, range(5)))
    assert min(counts[number] for number in range(5)) > 50
