"""Connections without a session under faults: reads are answered elsewhere, and nobody leaves one behind."""

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import Causality, NoPrimary, Policy, Router, RoutingError
from lagwise.testing import Cluster, wait_until
from tests.kit.connections import GONE, KINDS, on_replica, reading, write
from tests.kit.load import errors, loaded
from tests.kit.routers import QUICK, busy, in_rotation, router


@pytest.fixture
def db(quick: Router) -> Router:
    """A fault is noticed soon."""
    return quick


READERS, READS = 20, 400
LOST = (DBAPIError, RoutingError, *GONE)
each_kind = pytest.mark.parametrize("kind", KINDS)


def under_load(db: Router, kind: str) -> AbstractAsyncContextManager[list[Any]]:
    """Twenty readers while the block runs."""

    async def read() -> Any:
        async with reading(db, kind) as ask:
            return await ask("SELECT count(*) FROM item")

    return loaded(read, readers=READERS, reads=READS)


@each_kind
@pytest.mark.parametrize("fault", ["kill", "restart", "terminate_backends", "cut"])
async def test_no_read_fails(cluster: Cluster, db: Router, kind: str, fault: str) -> None:
    """A replica is killed, restarted, cut off, or drops every connection, under twenty readers."""
    async with under_load(db, kind) as results:
        await getattr(cluster, fault)("replica-1")
    assert errors(results) == []
    await wait_until(lambda: busy(db) == 0, what="every connection to be in its pool")


@each_kind
async def test_a_black_hole(cluster: Cluster, db: Router, kind: str) -> None:
    """Packets are swallowed and nobody set a time-out: reads in flight are cut off, and answered elsewhere."""
    async with under_load(db, kind) as results:
        await cluster.black_hole("replica-1")
        await in_rotation(db, "replica-2")
        await wait_until(lambda: db.pools["replica-1"].load() == 0, timeout=20, what="the reads to be cut off")
    assert errors(results) == []
    assert busy(db) == 0


@each_kind
async def test_a_black_hole_while_connecting(cluster: Cluster, kind: str) -> None:
    """A pool with no open connection meets it first."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.black_hole("replica-1")
        async with under_load(db, kind) as results:
            pass
        assert errors(results) == []


@each_kind
async def test_what_was_handed_out_is_not_repeated(cluster: Cluster, db: Router, kind: str) -> None:
    """After the first result a lost snapshot is the caller's to know; to leave it costs nothing more."""
    options = {"snapshot": True}
    async with reading(db, kind, **options) as ask:
        await ask("SELECT 1")
        for node in cluster.nodes.values():
            await cluster.terminate_backends(node)
        with pytest.raises(LOST):
            await ask("SELECT pg_sleep(0.2)")
    async with reading(db, kind, **options) as ask:
        await ask("SELECT 1")
        for node in cluster.nodes.values():
            await cluster.terminate_backends(node)
    assert busy(db) == 0


@each_kind
async def test_held_connections_are_not_changed(cluster: Cluster, db: Router, kind: str) -> None:
    """In a block of the caller's, or half-way through COPY and executemany, the error is the caller's."""
    db.drain("replica-2")
    if kind == "core":
        with pytest.raises(LOST):
            async with db.read.connect(snapshot=True) as connection, connection.begin():
                await cluster.terminate_backends("replica-1")
                await connection.execute(text("SELECT pg_sleep(0.2)"))
        assert busy(db) == 0
        return

    async def forget(_: bytes) -> None:
        pass

    for how in ("transaction", "copy", "executemany"):
        slept = False
        await in_rotation(db, "replica-1")
        with pytest.raises(LOST):
            async with db.read.asyncpg() as lent:
                if how == "transaction":
                    async with lent.transaction():
                        await cluster.terminate_backends("replica-1")
                        await lent.fetch("SELECT pg_sleep(0.2)")
                asking: Awaitable[Any] = (
                    lent.executemany("SELECT pg_sleep(5), $1", [("1",)] * 9)
                    if how == "executemany"
                    else lent.copy_from_query("SELECT pg_sleep(5)", output=forget)
                )
                task = asyncio.ensure_future(asking)
                await wait_until(lambda: asleep(cluster), what="it to be under way")
                slept = True
                await cluster.terminate_backends("replica-1")
                await task
        assert how == "transaction" or slept
    assert busy(db) == 0


async def asleep(cluster: Cluster) -> bool:
    """Whether the replica runs what takes long."""
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(5)%' AND pid <> pg_backend_pid()"
    return bool(await cluster["replica-1"].fetchval(sleeping))


@each_kind
async def test_after_a_failure_of_every_node(cluster: Cluster, db: Router, kind: str) -> None:
    """All are gone: a named error, no connection kept; when they are back, so are reads."""
    async with reading(db, kind) as ask:
        for node in cluster.nodes.values():
            await cluster.kill(node)
        for _ in range(2):
            with pytest.raises(LOST):
                await ask("SELECT 1")
    assert busy(db) == 0
    for node in cluster.nodes.values():
        await cluster.start(node)
    await in_rotation(db, "replica-1", "replica-2")
    async with reading(db, kind) as ask:
        assert await on_replica(ask)


@pytest.mark.parametrize("options", [{}, {"snapshot": True}], ids=str)
async def test_it_breaks_as_it_begins(cluster: Cluster, options: dict[str, bool]) -> None:
    """BEGIN finds nobody, and there is nowhere else: `NoPrimary`, and the pool has all its places."""
    engine = create_async_engine(cluster.primary.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    # What is asked of a connection that has ended hears nothing: that costs the bound of a new one, twice a turn.
    async with Router(engine, policy=replace(QUICK, connect_timeout=0.5)) as db:
        await write(db, "the pool is listened to")

        def breaks(_connection: Any, record: Any, _proxy: Any) -> None:
            record.driver_connection.terminate()

        event.listen(engine.sync_engine.pool, "checkout", breaks)
        for _ in range(3):
            with pytest.raises(NoPrimary):
                async with db.read.asyncpg(**options) as connection:
                    await connection.fetchval("SELECT 1")
            assert busy(db) == 0
    await engine.dispose()


async def test_a_write_to_a_silent_primary_can_be_given_up(cluster: Cluster) -> None:
    """Cancelled under a black hole it ends: ROLLBACK is not waited for until TCP gives up."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5), db.write.asyncpg() as connection:
                await connection.execute("SELECT 1")
                await cluster.black_hole("primary")
                async with asyncio.timeout(0.2):
                    start = loop.time()
                    await connection.execute("INSERT INTO item (name) VALUES ('silent')")
        assert loop.time() - start < 4
        assert busy(db) == 0


async def test_a_demoted_primary(doomed: Cluster) -> None:
    """The primary became a replica since the last probe: what was to be written is refused by name."""
    slow = Policy(probe_interval=60, max_lag=120, sticky_window=120, probe_timeout=0.5)
    async with router(doomed, slow) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await write(db, "before")
        await doomed.promote("replica-1")
        await doomed.stop("primary")
        await doomed.rejoin("primary", of="replica-1")
        with suppress(RoutingError):  # the new primary may have been found meanwhile
            await write(db, "to whichever is the primary")
        assert busy(db) == 0

        async def found() -> bool:
            db._nodes.monitor.hurry(tuple(doomed.nodes))
            return db.view.primary is not None

        await wait_until(found, what="the new primary")
        with Causality() as seen:
            await write(db, "after")
        assert list(map(str, seen.routes)) == ["replica-1; reason=write"]


async def test_a_write_as_the_primary_dies(cluster: Cluster, db: Router) -> None:
    """The caller has an error, nothing is kept, and without a primary there is a name for it."""
    with pytest.raises(LOST):
        async with db.write.asyncpg() as connection:
            await cluster.kill("primary")
            await connection.execute("SELECT 1")
    await wait_until(lambda: db.view.primary is None, what="its death to be seen")
    with pytest.raises(NoPrimary):
        await write(db, "nobody takes this")
    await wait_until(lambda: busy(db) == 0, what="every connection to be in its pool")  # the monitor may borrow one
