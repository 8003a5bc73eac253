"""A database with many objects, or one that takes its time to answer: its catalog is read, and probes go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lagwise import Policy, Router
from lagwise._decide.built_in import CONVERTING, EFFECTS, HARMLESS, HARMLESS_IN_C
from lagwise._decide.catalog import UNREAD
from lagwise._nodes.catalog_query import SQL
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import catalog_read

# The server process that waits for the lock.
READING = "SELECT pid FROM pg_locks WHERE relation = 'pg_catalog.pg_range'::regclass AND NOT granted"
GONE = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1"
MANY = """
DO $$ BEGIN FOR i IN {0}..{1} LOOP
    EXECUTE format('CREATE FUNCTION many.f%s(t text) RETURNS text LANGUAGE sql AS ''SELECT 1''', i);
    EXECUTE format('CREATE TABLE many.t%s (a text DEFAULT many.f%s(''x''), c int CHECK (c > 0))', i, i);
    EXECUTE format('CREATE VIEW many.v%s AS SELECT many.f%s(a) AS a FROM many.t%s', i, i, i);
    EXECUTE format('CREATE DOMAIN many.d%s AS text CHECK (many.f%s(VALUE) IS NOT NULL)', i, i);
END LOOP; END $$
"""


@asynccontextmanager
async def held(cluster: Cluster) -> AsyncIterator[Any]:
    """A table of the catalog is locked: a reading of it gets no answer, and nothing else waits.

    Right after a vacuum of the catalog a new connection waits as well: it needs all of the catalog, once.
    """
    async with cluster.primary.connect() as locking:
        while True:
            await locking.execute("BEGIN; LOCK TABLE pg_catalog.pg_range IN ACCESS EXCLUSIVE MODE")
            try:
                async with asyncio.timeout(1):
                    await cluster.primary.fetchval("SELECT 1")
                break
            except TimeoutError:
                await locking.execute("ROLLBACK")
        yield locking
        await locking.execute("ROLLBACK")


async def reading(cluster: Cluster) -> int:
    """The server process that waits to read the catalog."""
    return await wait_until(lambda: cluster.primary.fetchval(READING), what="the catalog is being read")


async def test_probes_go_on_while_the_catalog_is_read(cluster: Cluster) -> None:
    """A reading may take far longer than a probe; it has a connection of its own, which is closed when it is done."""
    policy = Policy(probe_timeout=0.2, probe_interval=0.05)
    async with held(cluster) as locking, Router(cluster.primary.url, policy=policy) as db:
        process = await reading(cluster)
        first = db.view.node("primary").reading
        assert first is not None

        def long_after() -> bool:
            latest = db.view.node("primary").reading
            return latest is not None and latest.at > first.at + 5 * policy.probe_timeout

        await wait_until(long_after, what="probes go on")
        assert (await reading(cluster), db._nodes.monitor.catalog) == (process, UNREAD)
        await locking.execute("ROLLBACK")
        await catalog_read(db)
        await wait_until(lambda: cluster.primary.fetchval(GONE, process), what="its connection is closed")


async def test_a_reading_ends_with_its_router(cluster: Cluster) -> None:
    """Closing the Router waits for no answer, and the server goes on with nothing."""
    async with held(cluster):
        async with Router(cluster.primary.url, policy=Policy(probe_timeout=0.2)):
            process = await reading(cluster)
        await wait_until(lambda: cluster.primary.fetchval(GONE, process), what="the server has stopped as well")


async def rows(connection: Any) -> int:
    """How many rows the query of the catalog looks at, in all of its steps."""
    arguments = sorted(HARMLESS), sorted(HARMLESS_IN_C), sorted(EFFECTS), 1 << 40, sorted(CONVERTING)
    (found,) = await connection.fetchrow("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + SQL, *arguments, timeout=60)

    def looked_at(plan: dict[str, Any]) -> int:
        seen = plan["Actual Rows"] + sum(count for what, count in plan.items() if what.startswith("Rows Removed by"))
        return int(seen * plan["Actual Loops"]) + sum(map(looked_at, plan.get("Plans", ())))

    return looked_at(json.loads(found)[0]["Plan"])


async def test_the_time_of_a_reading_grows_with_the_number_of_objects(cluster: Cluster) -> None:
    """Three times as many functions, tables, views and domains, all of them harmful: three times as many rows."""
    async with cluster.primary.connect() as connection:
        await connection.execute("SET jit = off; BEGIN; CREATE SCHEMA many")
        counts = []
        for first, last in ((1, 200), (201, 400), (401, 600)):
            await connection.execute(MANY.format(first, last))
            counts.append(await rows(connection))
        await connection.execute("ROLLBACK")
    assert counts[2] - counts[1] <= 1.5 * (counts[1] - counts[0])
