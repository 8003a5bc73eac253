"""Row security, and schemas of tenants: no request reads a row of another tenant, whatever its servers go through."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from lagwise import Causality, Router, RoutingError
from lagwise.testing import Cluster, wait_until
from tests.kit.connections import GONE
from tests.kit.routers import QUICK, in_rotation
from tests.kit.tenants import DOCS, MINE, TENANTS, TenantSession, as_web, settle_tenants, ways

REQUESTS = int(os.environ.get("LAGWISE_TEST_TENANTS", "200"))
WAYS = ways()
# How a request may end when its server does in the middle of it.
ENDED = (SQLAlchemyError, *GONE)


@pytest.fixture(scope="module")
async def tenants() -> AsyncIterator[Cluster]:
    """A cluster with the tenants; what a test promotes stays promoted, so the last one does it."""
    async with Cluster(replicas=2) as cluster:
        await settle_tenants(cluster)
        yield cluster


def of_tenants(cluster: Cluster) -> Router:
    """A Router for the role that row security binds, with fewer connections than requests at a time."""
    replicas = {node.name: as_web(node.url) for node in cluster.replicas}
    options = {"sync_session_class": TenantSession}
    return Router(as_web(cluster.primary.url), replicas, policy=QUICK, session_options=options, pool_size=3)


async def test_every_way_shows_its_own_rows_alone(tenants: Cluster) -> None:
    """On a replica and on the primary, twice in one session: the rows of this tenant, all of them and no others."""
    seen = {}
    async with of_tenants(tenants) as db:
        await in_rotation(db, "replica-1", "replica-2")
        for where in ("replicas", "primary"):
            for replica in tenants.replicas if where == "primary" else ():
                db.drain(replica.name)
            for way, (opened, asked) in WAYS.items():
                async with opened(db, "t7") as ask:
                    seen[where, way] = [await ask(asked), await ask(asked)]
    assert {each: found for each, found in seen.items() if found != [{"t7"}, {"t7"}]} == {}
    assert len(seen) == 2 * len(WAYS)


async def test_a_plain_engine_without_transactions_shows_everything(tenants: Cluster) -> None:
    """What the tests here would miss: AUTOCOMMIT on a replica, and SET LOCAL has no effect and says nothing."""
    engine = create_async_engine(as_web(tenants.replicas[0].url), isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine, sync_session_class=TenantSession, info={"tenant": "t7", "way": "SET LOCAL"}) as one:
        assert set((await one.scalars(text(DOCS))).all()) == set(TENANTS)
    async with AsyncSession(engine) as one:
        await one.execute(text("SELECT become('t7')"))
        assert set((await one.scalars(text(DOCS))).all()) == set(TENANTS)
    await engine.dispose()


async def test_a_plain_engine_leaves_the_schema_to_the_next(tenants: Cluster) -> None:
    """What a pool without a reset does: the next request reads the table of the tenant before it."""
    url = as_web(tenants.replicas[0].url)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    async with AsyncSession(engine) as one:
        await one.execute(text("SET search_path = t7"))
    async with AsyncSession(engine) as another:
        assert set((await another.scalars(text(MINE))).all()) == {"t7"}
    await engine.dispose()


class DiesAfterSetLocal(asyncpg.Connection):  # type: ignore[misc]
    """Loses its server in the moment when SET LOCAL was answered."""

    async def execute(self, query: str, *args: object, **kw: object) -> str:
        done: str = await super().execute(query, *args, **kw)
        if query.startswith("SET LOCAL"):
            self.terminate()
        return done


async def test_a_block_ends_with_its_connection(tenants: Cluster) -> None:
    """What a driver's transaction has set is gone with its server: the block goes on nowhere else without it."""
    found: list[object] = []
    async with of_tenants(tenants) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality():
            async with db.read.asyncpg() as driver:
                with pytest.raises((asyncpg.InterfaceError, RoutingError)):
                    async with driver.transaction():
                        await driver.execute("SET LOCAL search_path = t7")
                        pid = driver.get_server_pid()
                        for node in tenants.replicas:
                            await node.execute(f"SELECT pg_terminate_backend({pid})")
                        await wait_until(driver.is_closed, what="the driver has noticed")
                        async with db.write.begin() as session:  # its replica lacks this: a read would move
                            await session.execute(text("INSERT INTO word VALUES ('t7')"))
                        found += await driver.fetch(MINE)
    assert found == []  # what a stranger would be shown


async def test_a_block_ends_with_its_connection_at_once(tenants: Cluster) -> None:
    """Likewise in the moment of the answer, when a connection with nothing in it would go back to its pool."""
    found: list[object] = []
    replicas = {node.name: as_web(node.url) for node in tenants.replicas}
    dies = {"connection_class": DiesAfterSetLocal}
    async with Router(as_web(tenants.primary.url), replicas, policy=QUICK, connect_args=dies) as db:
        await in_rotation(db, "replica-1", "replica-2")
        async with db.read.asyncpg() as driver:
            with pytest.raises(asyncpg.InterfaceError):
                async with driver.transaction():
                    await driver.execute("SET LOCAL search_path = t7")
                    found += await driver.fetch(MINE)
    assert found == []


async def test_while_replicas_lag_die_and_are_promoted(tenants: Cluster) -> None:
    """Requests of 20 tenants, interleaved over few connections, some of which write: not one row of another tenant."""
    done: Counter[str] = Counter()
    wrong: list[tuple[str, str, set[str]]] = []
    turns = iter(range(REQUESTS))
    names = list(WAYS)
    faults: list[Callable[[], Awaitable[object]]] = [
        lambda: tenants.pause_replay("replica-1"),
        lambda: tenants.kill("replica-2"),
        lambda: tenants.start("replica-2"),
        lambda: tenants.resume_replay("replica-1"),
        lambda: tenants.terminate_backends("replica-1"),
        lambda: tenants.kill("primary"),
        lambda: tenants.promote("replica-1"),
        lambda: tenants.follow("replica-2", of="replica-1"),
        lambda: tenants.set_apply_delay("replica-2", 0.2),
    ]

    async def request(db: Router, number: int) -> None:
        tenant, way = TENANTS[number % 20], names[number % len(names)]
        opened, asked = WAYS[way]
        with Causality():
            async with opened(db, tenant) as ask:
                for again in range(3):
                    found = await ask(asked)
                    if found != {tenant}:
                        wrong.append((way, tenant, found))
                    done["answers"] += 1
                    if again == number % 7:
                        async with db.write.begin() as session:
                            await session.execute(text("INSERT INTO word VALUES (:who)"), {"who": tenant})

    async def client(db: Router) -> None:
        for number in turns:
            done["requests"] += 1
            try:
                await request(db, number)
            except ENDED as error:
                done[type(error).__name__] += 1

    async with of_tenants(tenants) as db:
        await in_rotation(db, "replica-1", "replica-2")
        clients = [asyncio.create_task(client(db)) for _ in range(10)]

        def far_enough(share: int) -> bool:
            return done["requests"] > share * REQUESTS / 10 or all(one.done() for one in clients)

        for number, fault in enumerate(faults, 1):
            await wait_until(
                partial(far_enough, number),
                timeout=60,
                what="requests under way",
            )
            await fault()
        await asyncio.gather(*clients)
        assert wrong == []
        assert done["answers"] > REQUESTS  # of three per request
        await wait_until(lambda: db.view.primary is not None and db.view.primary.name == "replica-1")
        opened, asked = WAYS["after_begin, SET LOCAL"]
        async with opened(db, "t3") as ask:
            assert await ask(asked) == {"t3"}
