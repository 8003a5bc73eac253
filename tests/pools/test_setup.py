"""What a new connection gets, and how a used one becomes like new again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import ReadOnly
from lagwise._pools.pooling import Pooling
from lagwise._pools.pools import Pools
from lagwise.testing import Cluster
from tests.kit.pools import ended, pools_of, take

Made = Callable[[str], Any]


def listens(adapter: Any, _record: Any) -> None:
    """As an application prepares its connections: by a cursor, and by the driver."""
    before, adapter.autocommit = adapter.autocommit, True
    cursor = adapter.cursor()
    cursor.execute("SET search_path = tenant, public")
    cursor.execute("SELECT set_config('app.tenant', 'it''s \\ ann', false)")
    cursor.close()
    adapter.autocommit = before
    adapter.run_async(lambda driver: driver.execute("SET app.region = 'eu'; SET work_mem = '5MB'"))


@pytest.fixture(params=["the class", "its own engine"])
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Made]:
    """Makes what a Router is given: a URL, with a listener on the class; or an engine that is listened to."""
    engines = []

    def own(url: str) -> Any:
        engine = create_async_engine(url)
        event.listen(engine.sync_engine, "connect", listens)
        engines.append(engine)
        return engine

    if request.param == "the class":
        event.listen(Engine, "connect", listens)
        yield str
        event.remove(Engine, "connect", listens)
    else:
        yield own
    for engine in engines:
        await engine.dispose()


@asynccontextmanager
async def opened(target: Any, **options: Any) -> AsyncIterator[Pools]:
    """The pools of one node, closed afterwards."""
    pools = pools_of(target, **options)
    try:
        yield pools
    finally:
        await pools.close(2.0)


@pytest.mark.parametrize("role", ["reads", "writes"])
async def test_a_used_connection_becomes_what_the_application_had_made_it(
    cluster: Cluster, made: Made, role: str
) -> None:
    """Its settings, own ones too, come back; the naive RESET ALL loses them."""
    names = ("search_path", "app.tenant", "app.region", "work_mem", "default_transaction_read_only")
    async with opened(made(cluster.primary.url)) as pools:
        connection = await take(getattr(pools, role))
        before = [await connection.ask(f"SHOW {name}") for name in names]
        assert before[:4] == ["tenant, public", "it's \\ ann", "eu", "5MB"]
        script = Pooling().restoration(connection.connection.info)
        assert script is not None
        await connection.script(
            "SET search_path = public; SET app.tenant = 'bob'; SET app.other = 'x'; SET ROLE pg_monitor"
        )
        await connection.script(script)
        assert [await connection.ask(f"SHOW {name}") for name in names] == before
        assert await connection.ask("SELECT current_setting('app.other', true)") == ""
        assert await connection.ask("SHOW role") == "none"
        await connection.script("RESET ALL")
        naive = [await connection.ask(f"SHOW {name}") for name in names]
        assert naive[:4] != before[:4]
        await connection.close()


async def test_a_role_that_was_set_comes_back(cluster: Cluster) -> None:
    """A listener's SET ROLE holds after a reset."""

    def role(adapter: Any, _record: Any) -> None:
        adapter.run_async(lambda driver: driver.execute("SET ROLE pg_monitor"))

    engine = create_async_engine(cluster.primary.url)
    event.listen(engine.sync_engine, "connect", role)
    async with opened(engine) as pools:
        connection = await take(pools.reads)
        script = Pooling().restoration(connection.connection.info)
        assert script is not None
        await connection.script("RESET ROLE")
        await connection.script(script)
        assert await connection.ask("SHOW role") == "pg_monitor"
        await connection.close()
    await engine.dispose()


@pytest.mark.parametrize("held", ["PREPARE mine AS SELECT 1", "LISTEN mine", "CREATE TEMP TABLE mine (a int)"])
async def test_what_no_script_can_make_again_is_not_reset(cluster: Cluster, held: str) -> None:
    """A connection that a listener gave a prepared statement, a channel or a table can only be closed."""
    engine = create_async_engine(cluster.primary.url)
    event.listen(
        engine.sync_engine, "connect", lambda adapter, _: adapter.run_async(lambda driver: driver.execute(held))
    )
    async with opened(engine) as pools:
        connection = await take(pools.writes)
        assert Pooling().restoration(connection.connection.info) is None
        await connection.close()
    await engine.dispose()


async def arrived(cluster: Cluster) -> None:
    """Wait until a replica's own new connections have the database's setting, and can do nothing."""
    for _ in range(200):
        try:
            await cluster["replica-1"].fetchval("SELECT 1")
        except asyncpg.FeatureNotSupportedError:
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("own", [False, True], ids=["from a URL", "own engine"])
@pytest.mark.parametrize("node", ["primary", "replica-1"])
async def test_reads_are_fenced_from_birth(cluster: Cluster, node: str, own: bool) -> None:
    """Without a transaction, and where SERIALIZABLE is the default: on a standby nothing would run under it."""
    database = await cluster.primary.fetchval("SELECT current_database()")
    setting = f'ALTER DATABASE "{database}" {{}} default_transaction_isolation'
    await cluster.primary.execute(setting.format("SET") + " = serializable")
    await arrived(cluster)
    engine = create_async_engine(cluster[node].url, isolation_level="SERIALIZABLE") if own else None
    try:
        async with opened(engine or cluster[node].url, **({} if own else {"isolation_level": "SERIALIZABLE"})) as pools:
            connection = await take(pools.reads)
            assert await connection.ask("SHOW default_transaction_read_only") == "on"
            assert await connection.ask("SHOW transaction_isolation") == "read committed"
            assert not connection.connection.connection.driver_connection.is_in_transaction()
            with pytest.raises(ReadOnly):
                await connection.ask("INSERT INTO item VALUES ('read')")
            await connection.close()
            async with pools.monitoring.connect() as monitoring:
                assert await monitoring.exec_driver_sql("SELECT 1")
    finally:
        await cluster.primary.execute(setting.format("RESET"))
        await cluster.caught_up()
        if engine is not None:
            await engine.dispose()


async def test_a_listener_cannot_lift_the_fence(cluster: Cluster) -> None:
    """An application that resets its new connections still reads without being able to write."""
    engine = create_async_engine(cluster.primary.url)
    lift = "RESET ALL; SET default_transaction_read_only = off; SET default_transaction_isolation = serializable"
    event.listen(
        engine.sync_engine, "connect", lambda adapter, _: adapter.run_async(lambda driver: driver.execute(lift))
    )
    async with opened(engine) as pools:
        connection = await take(pools.reads)
        assert await connection.ask("SHOW transaction_read_only") == "on"
        assert await connection.ask("SHOW transaction_isolation") == "read committed"
        await connection.close()
    await engine.dispose()


async def test_a_pooler_that_refuses_startup_parameters_is_asked_once(cluster: Cluster) -> None:
    """PgBouncer knows few of them: they are SET from then on."""
    asked: list[bool] = []

    async def pooler(*args: Any, **kw: Any) -> Any:
        asked.append("default_transaction_read_only" in (kw.get("server_settings") or {}))
        if asked[-1]:
            raise asyncpg.ProtocolViolationError("unsupported startup parameter: default_transaction_read_only")
        return await asyncpg.connect(*args, **kw)

    async with opened(cluster.primary.url, connect_args={"async_creator_fn": pooler}) as pools:
        one, two = await take(pools.reads), await take(pools.reads)
        assert [await each.ask("SHOW default_transaction_read_only") for each in (one, two)] == ["on", "on"]
        await one.close()
        await two.close()
    assert asked == [True, False, False]


@pytest.mark.parametrize("size", [1, 3])
async def test_a_connection_that_was_not_set_up_is_not_pooled(cluster: Cluster, size: int) -> None:
    """Whenever it is cancelled, the next session has a connection that works, and no other is left on the server."""
    node = cluster["replica-1"]
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cancelled'"
    options: Any = {"connect_args": {"server_settings": {"application_name": "cancelled"}}, "pool_size": size}
    async with opened(node.url, **options) as pools:
        for step in range(12):
            node.proxy.latency = 0.01
            task = asyncio.create_task(take(pools.reads))
            await asyncio.wait({task}, timeout=0.01 * step + 0.015)
            (result,) = await ended(task)
            node.proxy.latency = 0
            if not isinstance(result, BaseException):
                await result.close()
            connection = await take(pools.reads)
            assert await connection.ask("SELECT 1") == 1
            await connection.close()
        idle = pools.reading.sync_engine.pool.checkedin()  # type: ignore[attr-defined]

        for _ in range(100):
            if (left := await node.fetchval(count)) <= idle:
                break
            await asyncio.sleep(0.05)
        assert left <= idle
