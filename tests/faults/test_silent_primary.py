"""A primary that keeps its sockets open and answers nothing: no write waits for it without a bound."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Causality, NoPrimary, Policy, Router
from lagwise._pools.counters import checked_out
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import in_rotation, router

SOON = Policy(probe_interval=0.1, probe_timeout=0.5, abort_after=1.0, close_timeout=1.0)
INSERT = "INSERT INTO item (name) VALUES ('cut off')"
# Far more than the bound, on the busiest machine; without the bound the sockets stay open for a quarter of an hour.
LONG_ENOUGH = 60.0
Ready = Callable[[], Awaitable[None]]
Write = Callable[[Router, Ready], Awaitable[None]]


async def statement(db: Router, ready: Ready) -> None:
    async with db.write.begin() as session:
        await session.execute(text("SELECT 1"))
        await ready()
        await session.execute(text(INSERT))


async def commit(db: Router, ready: Ready) -> None:
    async with db.write.begin() as session:
        await session.execute(text(INSERT))
        await ready()


async def rollback(db: Router, ready: Ready) -> None:
    async with db.write() as session:
        await session.execute(text(INSERT))
        await ready()
        await session.rollback()


async def close(db: Router, ready: Ready) -> None:
    async with db.write() as session:
        await session.execute(text(INSERT))
        await ready()


async def reset(db: Router, ready: Ready) -> None:
    async with db.write() as session:
        await session.execute(text("SET statement_timeout = 0"))
        await session.commit()
        await ready()


async def savepoint(db: Router, ready: Ready) -> None:
    async with db.write.begin() as session, session.begin_nested():
        await session.execute(text(INSERT))
        await ready()


async def driver_statement(db: Router, ready: Ready) -> None:
    async with db.write.asyncpg() as driver:
        await ready()
        await driver.execute(INSERT)


async def driver_commit(db: Router, ready: Ready) -> None:
    async with db.write.asyncpg() as driver:
        await driver.execute(INSERT)
        await ready()


async def driver_savepoint(db: Router, ready: Ready) -> None:
    async with db.write.asyncpg() as driver, driver.transaction():
        await driver.execute(INSERT)
        await ready()


async def driver_prepared(db: Router, ready: Ready) -> None:
    async with db.write.asyncpg() as driver:
        prepared = await driver.prepare(INSERT)
        await ready()
        await prepared.fetch()


WRITES: list[Write] = [
    statement, commit, rollback, close, reset, savepoint, driver_statement, driver_commit, driver_savepoint,
    driver_prepared,
]  # fmt: skip


async def frozen(
    cluster: Cluster, db: Router, writes: Sequence[Write]
) -> dict[str, tuple[asyncio.Task[None], Causality]]:
    """The primary falls silent when each of these writes is at its `ready()`; then they go on."""
    arrived, silent = asyncio.Semaphore(0), asyncio.Event()

    async def ready() -> None:
        arrived.release()
        await silent.wait()

    async def run(write: Write, seen: Causality) -> None:
        with seen:
            await write(db, ready)

    running = {}
    for write in writes:
        seen = Causality(None)
        running[write.__name__] = asyncio.create_task(run(write, seen)), seen
    for _ in writes:
        await arrived.acquire()
    await cluster.black_hole("primary")
    silent.set()
    return running


async def no_place_held(db: Router) -> None:
    """Wait until no session holds a connection to the primary."""
    engine = db.pools["primary"].writes

    def free() -> bool:
        return checked_out(engine.pool) == 0 and not list(engine.counters.in_use())

    await wait_until(free, what="no connection in use", timeout=LONG_ENOUGH)


async def test_every_write_in_flight_ends(cluster: Cluster) -> None:
    """What was not a COMMIT says that nothing was written; a COMMIT says no such thing, and its client is in doubt."""
    async with router(cluster, SOON, pool_size=len(WRITES)) as db:
        await in_rotation(db, "replica-1", "replica-2")
        running = await frozen(cluster, db, WRITES)
        _, late = await asyncio.wait([task for task, _ in running.values()], timeout=LONG_ENOUGH)
        assert [name for name, (task, _) in running.items() if task in late] == []
        await asyncio.gather(*(task for task, _ in running.values()), return_exceptions=True)
        for name in ("rollback", "close", "reset"):
            await running[name][0]  # what was to be undone is undone
        for name in ("statement", "savepoint", "driver_statement"):
            with pytest.raises(NoPrimary, match="nothing of it was written"):
                await running[name][0]
        for name in ("commit", "driver_commit"):
            task, seen = running[name]
            error = task.exception()
            assert error is not None
            assert not isinstance(error, NoPrimary), name
            assert [position.in_doubt_at > 0 for position in seen.token] == [True], name
        await no_place_held(db)


async def test_a_cancelled_write_ends_too(cluster: Cluster) -> None:
    """A request that is given up, in COMMIT or in ROLLBACK, gives its place in the pool back."""
    writes = [commit, rollback, close, driver_commit]
    async with router(cluster, SOON, pool_size=len(writes)) as db:
        await in_rotation(db, "replica-1", "replica-2")
        running = [task for task, _ in (await frozen(cluster, db, writes)).values()]

        def waits(task: asyncio.Task[None]) -> bool:
            using: Iterator[Any] = db.pools["primary"].writes.counters.in_use()
            return task.done() or any(one.committing or one.awaited for one in using if one.task is task)

        await wait_until(lambda: all(map(waits, running)), what="COMMIT and ROLLBACK under way")
        for task in running:
            task.cancel()
        _, late = await asyncio.wait(running, timeout=LONG_ENOUGH)
        assert not late
        await asyncio.gather(*running, return_exceptions=True)
        await no_place_held(db)


async def test_a_transaction_that_waits_for_nothing_goes_on(cluster: Cluster) -> None:
    """The network is away for longer than the bound while the application does something else: nothing is lost."""
    async with router(cluster, SOON, pool_size=2) as db:
        await in_rotation(db, "replica-1", "replica-2")
        async with db.write.begin() as session:
            await session.execute(text(INSERT))
            running = await frozen(cluster, db, [statement])
            with pytest.raises(NoPrimary):
                await running["statement"][0]
            await cluster.heal()
            assert await session.scalar(text("SELECT count(*) FROM item WHERE name = 'cut off'")) == 1


async def test_a_slow_statement_is_no_silence(cluster: Cluster) -> None:
    """The node answers its probes meanwhile: a statement, and a COMMIT, may take as long as they take."""
    async with router(cluster, SOON) as db:
        await in_rotation(db, "replica-1", "replica-2")
        async with db.write.begin() as session:
            assert await session.scalar(text("SELECT 'slow' FROM pg_sleep(2.5)")) == "slow"
