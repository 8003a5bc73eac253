"""`timeout=`: a statement that takes longer is stopped, on the server too, and nothing else is changed by that."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Causality, Policy, Router, RoutingError, StatementTimeout
from lagwise.events import Event, Retried
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.routers import busy, no_query_runs, quiet, router
from tests.kit.sessions import count

LIMIT = 0.2
_SLEEP = "SELECT pg_sleep({})"
Run = Callable[[str], Awaitable[Any]]
Use = Callable[[Run], Awaitable[None]]


async def _session(db: Router, use: Use, **options: Any) -> None:
    async with db.read(**options) as session:
        await use(lambda sql: session.scalar(text(sql)))


async def _core(db: Router, use: Use, **options: Any) -> None:
    async with db.read.connect(**options) as connection:
        await use(lambda sql: connection.scalar(text(sql)))


async def _driver(db: Router, use: Use, **options: Any) -> None:
    async with db.read.asyncpg(**options) as connection:
        await use(connection.fetchval)


async def _write(db: Router, use: Use, **options: Any) -> None:
    async with db.write(**options) as session:

        async def run(sql: str) -> Any:
            try:
                return await session.scalar(text(sql))
            except StatementTimeout:
                await session.rollback()
                raise

        await use(run)


async def _write_driver(db: Router, use: Use, **options: Any) -> None:
    async with db.write.asyncpg(**options) as connection:

        async def run(sql: str) -> Any:
            async with connection.transaction():
                return await connection.fetchval(sql)

        await use(run)


READS: dict[str, Callable[..., Awaitable[None]]] = {"a session": _session, "Core": _core, "asyncpg": _driver}
DOORS = {**READS, "a write": _write, "a write by asyncpg": _write_driver}


@pytest.fixture
async def watched(cluster: Cluster) -> AsyncIterator[tuple[Router, list[Event]]]:
    """A Router with one connection in each pool, and the events that it tells."""
    events: list[Event] = []
    async with router(cluster, Policy(probe_timeout=5), pool_size=1, on_event=events.append) as db:
        await wait_until(lambda: len(db.view.rotation) == 2, what="both in rotation")
        yield db, events


@pytest.mark.parametrize("door", DOORS)
async def test_a_statement_that_takes_longer_is_stopped(
    cluster: Cluster, watched: tuple[Router, list[Event]], door: str
) -> None:
    """The error names node and limit, the server works on it no more, and the session can go on."""
    db, events = watched
    suspected: list[str] = []
    for pools in db.pools.values():
        pools.traffic.suspect = pools.traffic.lost = suspected.append

    async def use(run: Run) -> None:
        with pytest.raises(StatementTimeout) as caught:
            await run(_SLEEP.format(60))
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, RoutingError)
        assert " longer than its limit of 0.2 s" in str(caught.value)
        assert any(f"on {node} " in str(caught.value) for node in cluster.nodes)
        assert await no_query_runs(cluster, _SLEEP.format("%"))  # the monitor's own go on
        assert await run("SELECT 7") == 7

    await DOORS[door](db, use, timeout=LIMIT)
    await wait_until(lambda: no_query_runs(cluster), what="no server works on it")
    assert (suspected, busy(db)) == ([], 0)
    assert [event for event in events if isinstance(event, Retried)] == []
    assert len(db.view.rotation) == 2


@pytest.mark.parametrize("door", DOORS)
async def test_the_next_user_of_the_connection_has_no_limit(watched: tuple[Router, list[Event]], door: str) -> None:
    """Neither after a statement that was stopped, nor after one that was not; the pools have one connection each."""
    db, _ = watched
    for seconds in (0, 60):

        async def within(run: Run, seconds: float = seconds) -> None:
            if seconds:
                with pytest.raises(StatementTimeout):
                    await run(_SLEEP.format(seconds))
            else:
                await run(_SLEEP.format(seconds))

        for _ in db.pools:  # whichever replica
            await DOORS[door](db, within, timeout=LIMIT, **({} if "write" in door else {"primary": True}))

        async def after(run: Run) -> None:
            await run(_SLEEP.format(2 * LIMIT))

        await DOORS[door](db, after, **({} if "write" in door else {"primary": True}))


@pytest.mark.parametrize("door", DOORS)
async def test_it_costs_no_round_trip(cluster: Cluster, door: str) -> None:
    """The same number with a limit and without."""

    async def use(run: Run) -> None:
        await run("SELECT 1")

    async with quiet(cluster) as db:
        counts = []
        for options in ({}, {}, {"timeout": 5.0}):
            before = sum(node.proxy.round_trips for node in cluster.nodes.values())
            await DOORS[door](db, use, **({} if "write" in door else {"primary": True}), **options)
            counts.append(sum(node.proxy.round_trips for node in cluster.nodes.values()) - before)
    assert counts[1] == counts[2]


@pytest.mark.parametrize("door", READS)
async def test_a_statement_that_waits_for_a_lock_is_stopped(cluster: Cluster, db: Router, door: str) -> None:
    """It waits while it is prepared, where the driver sends its request in another way."""

    async def use(run: Run) -> None:
        with pytest.raises(StatementTimeout):
            await run("SELECT count(*) FROM item")

    async with cluster.primary.connect() as other:
        await other.execute("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE")
        await DOORS[door](db, use, timeout=LIMIT, primary=True)

    async def again(run: Run) -> None:
        await run("SELECT count(*) FROM item")

    await DOORS[door](db, again, timeout=5, primary=True)
    await wait_until(lambda: no_query_runs(cluster), what="no server works on it")


async def test_commit_has_no_limit(cluster: Cluster, db: Router) -> None:
    """A COMMIT that is cut off would be in doubt: a deferred trigger that takes longer is waited for."""
    await cluster.primary.execute("""
        CREATE TABLE slow_commit (id int);
        CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON slow_commit DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION slowly();
    """)
    try:
        with Causality() as seen:
            async with db.write.begin(timeout=LIMIT) as session:
                await session.execute(text("INSERT INTO slow_commit VALUES (1)"))
            async with db.write.asyncpg(timeout=LIMIT) as connection:
                await connection.execute("INSERT INTO slow_commit VALUES (2)")
            assert [position.in_doubt_at for position in seen.token] == [0]
    finally:
        await cluster.primary.execute("DROP TABLE slow_commit; DROP FUNCTION slowly()")


async def test_a_write_that_was_stopped_leaves_nothing(db: Router) -> None:
    """Neither a row nor a token; and a savepoint of the same transaction can be rolled back to."""
    with Causality() as seen:
        with pytest.raises(StatementTimeout):
            async with db.write.begin(timeout=LIMIT) as session:
                session.add(Item(name="stopped"))
                await session.flush()
                await session.execute(text(_SLEEP.format(60)))
        assert str(seen.token) == ""
        async with db.write.begin(timeout=LIMIT) as session:
            session.add(Item(name="not stopped"))
            with pytest.raises(StatementTimeout):
                async with session.begin_nested():
                    session.add(Item(name="stopped"))
                    await session.execute(text(_SLEEP.format(60)))
    async with db.read(primary=True) as session:
        assert (await count(session, "stopped"), await count(session, "not stopped")) == (0, 1)


async def test_after_one_that_was_stopped_the_limit_holds(db: Router) -> None:
    """A write goes on behind a savepoint: its next statement is stopped as well."""
    async with db.write(timeout=LIMIT) as session:
        with pytest.raises(StatementTimeout):
            async with session.begin_nested():
                await session.execute(text(_SLEEP.format(3)))
        with pytest.raises(StatementTimeout):
            await session.execute(text(_SLEEP.format(3)))


async def test_in_a_stream_it_is_the_limit_of_each_batch(db: Router) -> None:
    """The stream as a whole may take longer; a batch may not."""
    slow = """SELECT n, pg_sleep(CASE WHEN n = {} THEN 60 WHEN n % 50 = 0 THEN 0.25 END)
              FROM generate_series(1, 120) AS n"""
    async with db.read(snapshot=True, timeout=2 * LIMIT) as session:
        result = await session.stream(text(slow.format(0)))  # SQLAlchemy fetches more and more rows at a time
        assert [row.n async for row in result] == [*range(1, 121)]
    seen: list[int] = []
    with pytest.raises(StatementTimeout):
        async with db.read(snapshot=True, timeout=2 * LIMIT) as session:
            async for row in await session.stream(text(slow.format(60))):
                seen += [row.n]
    assert seen == [*range(1, len(seen) + 1)]
    assert 0 < len(seen) < 60
    assert busy(db) == 0


async def test_a_time_out_of_the_drivers_own_goes_first(db: Router) -> None:
    """`fetchval(..., timeout=)` in a block with a limit: the error names the one that was reached."""
    async with db.read.asyncpg(timeout=LIMIT) as connection:
        await connection.fetchval("SELECT pg_sleep(0.4)", timeout=5)
        with pytest.raises(StatementTimeout, match=r"0\.1 s"):
            await connection.fetchval(_SLEEP.format(60), timeout=0.1)
        with pytest.raises(StatementTimeout, match=r"0\.2 s"):
            await connection.fetchval(_SLEEP.format(60))


@pytest.mark.parametrize("door", READS)
async def test_of_a_silent_server_the_connection_is_gone(cluster: Cluster, db: Router, door: str) -> None:
    """Nothing is known of the statement, so nothing is read on its connection any more."""

    async def warm(run: Run) -> None:
        await run("SELECT 1")

    await DOORS[door](db, warm, primary=True)
    (driver,) = db.pools["primary"]._setups["reading"].drivers

    async def use(run: Run) -> None:
        with pytest.raises(StatementTimeout):
            await run("SELECT 1")

    await cluster.black_hole("primary")
    await DOORS[door](db, use, primary=True, timeout=LIMIT)
    assert driver.is_closed()
    assert busy(db) == 0


async def test_a_limit_is_seconds_above_zero(db: Router) -> None:
    """Anything else is a mistake, and found before a session is opened."""
    for wrong in (0, -1, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="timeout must be a number of seconds, above 0"):
            db.read(timeout=wrong)
        with pytest.raises(ValueError, match="timeout must be"):
            db.write(timeout=wrong)


async def test_sqlite_takes_it_and_has_none() -> None:
    """Unit tests without a server run the application as it is."""
    async with Router("sqlite+aiosqlite://") as db, db.read(timeout=1.0) as session:
        assert await session.scalar(text("SELECT 1")) == 1
