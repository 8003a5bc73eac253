"""Before a PgBouncer: transactions are all that a connection has, and nothing of a session stays in its servers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import Causality, NoPrimary, ReadOnly, Router, RoutingError
from lagwise.health import nodes
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.bouncer import Bouncer, bouncer
from tests.kit.load import errors, many
from tests.kit.logs import event_of
from tests.kit.routers import LONG, MANY, PATIENT, both_in_rotation, catalog_read, in_rotation
from tests.kit.waits import waits

# What a session must not leave to strangers.
LASTING = {
    "SET": "SET search_path = elsewhere",
    "SET of its own": "SET app.tenant = 'red'",
    "set_config": "SELECT set_config('search_path', 'elsewhere', false)",
    "set_config, unknown": "SELECT set_config('search_' || 'path', 'elsewhere', false)",
    "SET ROLE": "SET ROLE pg_monitor",
    "RESET ALL": "RESET ALL",
    "DISCARD ALL": "DISCARD TEMP",
    "PREPARE": "PREPARE mine AS SELECT 1",
    "DEALLOCATE": "DEALLOCATE ALL",
    "LISTEN": "LISTEN channel",
    "a lock of the session": "SELECT pg_advisory_lock(7)",
    "a temporary table": "CREATE TEMP TABLE mine (id int)",
    "a temporary copy": "SELECT 1 AS id INTO TEMP mine",
    "a temporary view": "CREATE TEMP VIEW mine AS SELECT 1",
    "a cursor WITH HOLD": "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "the second of two": "SELECT 1; SET search_path = elsewhere",
}
Run = Callable[[Router, str], Awaitable[Any]]


async def by_session(db: Router, sql: str) -> Any:
    async with db.read() as session:
        return await session.execute(text(sql))


async def by_core(db: Router, sql: str) -> Any:
    async with db.read.connect() as connection:
        return await connection.exec_driver_sql(sql)


async def by_driver(db: Router, sql: str) -> Any:
    async with db.read.asyncpg() as driver:
        return await driver.execute(sql)


async def by_write_session(db: Router, sql: str) -> Any:
    async with db.write.begin() as session:
        return await session.execute(text(sql))


async def by_writing_driver(db: Router, sql: str) -> Any:
    async with db.write.asyncpg() as driver:
        return await driver.execute(sql)


DOORS: list[Run] = [by_session, by_core, by_driver, by_write_session, by_writing_driver]


@pytest.fixture
async def cluster(running: Cluster) -> AsyncIterator[Cluster]:
    """A primary and two replicas, healthy; mended afterwards."""
    yield running
    await running.restore()


@pytest.fixture(scope="module")
async def pooler(running: Cluster) -> AsyncIterator[Bouncer]:
    """A PgBouncer in transaction mode before all nodes."""
    async with bouncer(running) as pooler:
        yield pooler


@pytest.fixture
async def pooled(pooler: Bouncer, cluster: Cluster) -> AsyncIterator[Router]:
    """A Router through it, both replicas in rotation."""
    async with pooler.router(PATIENT) as db:
        await both_in_rotation(db)
        yield db


async def is_clean(pooler: Bouncer) -> None:
    """Assert that each server connection of each node is as its server made it."""
    for name in pooler.urls:
        for server in await pooler.all_servers(name):
            pid = server.pop("pid")
            assert server == {
                "fence": "off", "isolation": "read committed", "path": '"$user", public', "tenant": "",
                "prepared": 0, "listening": 0, "temporary": 0, "locks": 0, "settings": "",
            }, (name, pid)  # fmt: skip


@pytest.mark.parametrize("run", DOORS)
async def test_what_outlives_a_transaction_is_refused(pooled: Router, pooler: Bouncer, run: Run) -> None:
    """Whatever would be left to a stranger raises an error that names the setting and the way out; nothing is sent."""
    await catalog_read(pooled)
    for name, sql in LASTING.items():
        with pytest.raises(RoutingError) as refused:
            await run(pooled, sql)
        assert 'pooling="transaction"' in str(refused.value), name
        assert "SET LOCAL" in str(refused.value)
    await is_clean(pooler)


async def test_what_ends_with_its_transaction_works(pooled: Router, pooler: Bouncer) -> None:
    """SET LOCAL, a lock of the transaction, a temporary table that is dropped at COMMIT, NOTIFY, savepoints."""
    async with pooled.write.begin() as session:
        await session.execute(text("SET LOCAL app.tenant = 'red'"))
        await session.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await session.execute(text("CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1 AS id"))
        await session.execute(text("NOTIFY channel"))
        async with session.begin_nested():
            assert await session.scalar(text("SELECT current_setting('app.tenant') || id FROM mine")) == "red1"
    async with pooled.read() as session, session.begin():
        await session.execute(text("SELECT set_config('app.tenant', 'blue', true)"))
        assert await session.scalar(text("SELECT current_setting('app.tenant')")) == "blue"
    async with pooled.read(snapshot=True) as session:
        assert await session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        assert await session.scalar(text("SHOW transaction_read_only")) == "on"
        assert [row async for row in await session.stream_scalars(text("SELECT generate_series(1, 3)"))] == [1, 2, 3]
    async with pooled.read.asyncpg() as driver, driver.transaction():
        assert [row[0] async for row in driver.cursor("SELECT generate_series(1, 3)")] == [1, 2, 3]
        statement = await driver.prepare("SELECT $1::int + 1")
        assert [await statement.fetchval(number) for number in (1, 2)] == [2, 3]
    await is_clean(pooler)


async def test_an_after_begin_listener_has_a_transaction(pooled: Router, pooler: Bouncer) -> None:
    """What a listener sets for its transaction is there in every statement of it, and nowhere afterwards."""

    def tenant(_session: Any, _transaction: Any, connection: Any) -> None:
        connection.exec_driver_sql("SET LOCAL app.tenant = 'red'")

    async with pooled.read() as session:
        event.listen(session.sync_session, "after_begin", tenant)
        for _ in range(2):
            assert await session.scalar(text("SELECT current_setting('app.tenant', true)")) == "red"
    await is_clean(pooler)


async def test_what_unseen_code_sets_in_a_read_is_rolled_back(pooled: Router, pooler: Bouncer) -> None:
    """A DO block can set anything, and lagwise cannot see it: a read ends with ROLLBACK, also where it commits."""
    sneaky = "DO $$ BEGIN PERFORM set_config('search_path', 'elsewhere', false); END $$"
    for run in (by_session, by_core, by_driver):
        await run(pooled, sneaky)
    async with pooled.read() as session:
        await session.execute(text(sneaky))
        await session.commit()
    async with pooled.read.asyncpg() as driver, driver.transaction():
        await driver.execute(sneaky)
    await is_clean(pooler)


async def test_each_statement_of_a_read_is_read_only(pooled: Router) -> None:
    """On a replica and on the primary, by every door; and a failed statement does not spoil the next one."""
    for options in ({}, {"primary": True}):
        async with pooled.read(**options) as session:
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"
            with pytest.raises(ReadOnly):
                await session.execute(text("INSERT INTO item (name) VALUES ('forbidden')"))
            assert not session.in_transaction() or await session.scalar(text("SELECT 1")) == 1
        async with pooled.read.connect(**options) as core:
            with pytest.raises(DBAPIError):
                await core.execute(text("SELECT nothing_of_this_name"))
            assert await core.scalar(text("SHOW transaction_read_only")) == "on"
        async with pooled.read.asyncpg(**options) as driver:
            with pytest.raises(ReadOnly):
                await driver.execute("INSERT INTO item (name) VALUES ($1)", "forbidden")
            with pytest.raises(asyncpg.UndefinedColumnError):
                await driver.fetch("SELECT nothing_of_this_name")
            assert await driver.fetchval("SHOW transaction_read_only") == "on"
            async with driver.transaction():
                assert await driver.fetchval("SHOW transaction_read_only") == "on"
            with pytest.raises(RoutingError, match="begins a transaction by"):
                await driver.execute("BEGIN")
            with pytest.raises(ReadOnly):
                await driver.execute("COMMIT; INSERT INTO item (name) VALUES ('forbidden')")


async def test_a_read_waits_four_times(pooler: Bouncer, cluster: Cluster) -> None:
    """BEGIN, the statement's parsing, its execution, ROLLBACK; a write with its token as many and two for INSERT."""
    port = pooler.proxy.address.port
    async with waits(port) as relay:
        moved = {name: url.replace(f":{port}/", f":{relay.port}/") for name, url in pooler.urls.items()}
        one = {"replica-1": moved["replica-1"]}  # so that its connection is open before waits are counted
        async with Router(moved["primary"], one, policy=LONG, pooling="transaction", pool_size=1) as db:
            await in_rotation(db, "replica-1")
            await catalog_read(db)

            async def read() -> None:
                async with db.read() as session:
                    await session.scalar(select(Item.name).limit(1))

            async def read_by_driver() -> None:
                async with db.read.asyncpg() as driver:
                    await driver.fetchval("SELECT name FROM item WHERE name = $1", "x")

            async def write() -> None:
                with Causality() as seen:
                    async with db.write.begin() as session:
                        await session.execute(text("INSERT INTO item (name) VALUES ('waits')"))
                assert [position.lsn > 0 for position in seen.token] == [True]

            for use in (read, read_by_driver, write):
                await use()
                before = relay.count
                for _ in range(MANY):
                    await use()
                assert (relay.count - before) / MANY == 4, use.__name__


async def test_a_pooler_is_detected_before_anything_is_set(
    pooler: Bouncer, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the setting: one clear error at once, in the log and in /nodes as well, and no server is touched."""
    caplog.set_level(logging.WARNING)
    async with pooler.router(PATIENT, pooling="session") as db:
        for use in (db.read, db.write):
            with pytest.raises(NoPrimary) as refused:
                async with use() as session:
                    await session.scalar(text("SELECT 1"))
            assert 'Router(..., pooling="transaction")' in str(refused.value)
        assert {node.error for node in nodes(db).nodes.values()} == {"TransactionPooler"}
    said = [str(vars(record).get("error")) for record in caplog.records if event_of(record) == "node-unreachable"]
    assert len(said) == 3
    assert all('pooling="transaction"' in each for each in said)
    await is_clean(pooler)


async def test_without_detection_reads_fail_and_strangers_are_fenced(cluster: Cluster) -> None:
    """The recipe of the guides, caches off and AUTOCOMMIT: statements are looked for on the wrong server."""
    async with bouncer(cluster) as own:
        naive = create_async_engine(
            own.url("primary"),
            isolation_level="AUTOCOMMIT",
            pool_size=20,
            connect_args={
                "statement_cache_size": 0, "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"stmt-{id(asyncio.current_task())}",
            },
        )  # fmt: skip

        one = await own.stranger("primary")
        await one.execute("SET default_transaction_read_only = on")
        await one.close()
        assert "on" in {server["fence"] for server in await own.all_servers("primary")}

        async def read(_number: int) -> Any:
            async with naive.connect() as connection:
                return await connection.scalar(text("SELECT 1"))

        results = await many(200, read, at_once=20)
        await naive.dispose()
        assert len(errors(results)) > 20


async def test_a_pooler_in_session_mode_is_left_alone(cluster: Cluster) -> None:
    """There a connection keeps its server, which is all that the default needs: reads are fenced and reset as ever."""
    async with bouncer(cluster, mode="session") as session_mode, session_mode.router(PATIENT, pool_size=1) as db:
        await both_in_rotation(db)
        for _ in range(3):
            async with db.read() as session:
                assert await session.scalar(text("SHOW default_transaction_read_only")) == "on"
                assert await session.scalar(text("SHOW search_path")) != "elsewhere"
                await session.execute(text("SET search_path = elsewhere"))


async def test_a_connect_listener_that_sets_something_is_named(pooler: Bouncer, cluster: Cluster) -> None:
    """What an application sets at connect would reach strangers: the connection is refused, with the reason."""
    engine = create_async_engine(pooler.url("primary"))

    @event.listens_for(engine.sync_engine, "connect")
    def sets(adapter: Any, _record: Any) -> None:
        cursor = adapter.cursor()
        cursor.execute("SET search_path = elsewhere")
        cursor.close()

    async with Router(engine, pooling="transaction", policy=PATIENT) as db:
        with pytest.raises((RoutingError, DBAPIError), match=r"pooling=|setup-failed"):
            async with db.read() as session:
                await session.scalar(text("SELECT 1"))
    await engine.dispose()
    await is_clean(pooler)


async def test_a_startup_parameter_that_is_refused_is_named(pooler: Bouncer, cluster: Cluster) -> None:
    """`server_settings` that PgBouncer does not take: the error says which setting of PgBouncer lets them pass."""
    settings = {"server_settings": {"jit": "off"}}
    async with pooler.router(PATIENT, connect_args=settings) as db:
        with pytest.raises(NoPrimary, match="ignore_startup_parameters"):
            async with db.write() as session:
                await session.scalar(text("SELECT 1"))
    async with bouncer(cluster, ignored="jit") as lenient, lenient.router(PATIENT, connect_args=settings) as db:
        await both_in_rotation(db)
        async with db.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_the_setting_is_checked() -> None:
    """A misspelt mode, or one that the database does not have, is named when the Router is made."""
    with pytest.raises(ValueError, match='pooling must be "session" or "transaction"'):
        Router("postgresql+asyncpg://host/db", pooling="statement")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs PostgreSQL"):
        Router("sqlite+aiosqlite://", pooling="transaction")


async def test_an_async_creator_keeps_no_statements(pooler: Bouncer, cluster: Cluster) -> None:
    """A connection that the application opens itself: the driver's cache must be off, and the error says so."""
    url = pooler.url("primary").replace("+asyncpg", "")
    for size, works in ((100, False), (0, True)):
        engine = create_async_engine(
            pooler.url("primary"),
            async_creator=lambda size=size: asyncpg.connect(url, statement_cache_size=size),
        )
        async with Router(engine, pooling="transaction", policy=PATIENT) as db:
            if works:
                async with db.read() as session:
                    assert await session.scalar(text("SHOW transaction_read_only")) == "on"
            else:
                with pytest.raises(NoPrimary):
                    async with db.read() as session:
                        await session.scalar(text("SELECT 1"))
        await engine.dispose()
    await is_clean(pooler)
