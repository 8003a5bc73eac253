"""An engine passed in is that engine in every role: only the pool differs, and the isolation level."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as extension
from sqlalchemy import JSON, bindparam, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._pools.pools import Pools
from lagwise.testing import Cluster
from tests.kit.pools import pools_of, take


@pytest.fixture
async def engine(cluster: Cluster) -> AsyncIterator[AsyncEngine]:
    """An engine with everything that can be configured."""
    engine = create_async_engine(
        cluster.primary.url,
        json_serializer=lambda value: json.dumps({"ours": value}),
        hide_parameters=True,
        execution_options={"schema_translate_map": {None: "tenant"}, "mine": 1, "isolation_level": "SERIALIZABLE"},
        logging_name="shop",
        pool_size=3,
        max_overflow=0,
    )
    yield engine
    await engine.dispose()


@pytest.fixture
async def pools(engine: AsyncEngine) -> AsyncIterator[Pools]:
    """Its roles."""
    pools = pools_of(engine)
    yield pools
    await pools.close(2.0)


@pytest.mark.parametrize("role", ["reads", "writes"])
async def test_what_is_configured_holds_in_every_role(engine: AsyncEngine, pools: Pools, role: str) -> None:
    """JSON serializer, hidden parameters, execution options, logging name, pool size."""
    routed = getattr(pools, role)
    assert (routed.hide_parameters, routed.logging_name, routed.pool.size()) == (True, "shop", 3)
    options = routed.get_execution_options()
    assert (options["mine"], options["schema_translate_map"]) == (1, {None: "tenant"})
    assert ("isolation_level" in options) is (role == "writes")
    connection = await take(routed)
    echoed = select(bindparam("value", {"a": 1}, type_=JSON))
    value = await greenlet_spawn(lambda: connection.connection.execute(echoed).scalar())
    assert value == {"ours": {"a": 1}}
    level = await connection.ask("SHOW transaction_isolation")
    assert level == ("serializable" if role == "writes" else "read committed")
    await connection.close()


@pytest.mark.parametrize("role", ["reads", "writes"])
async def test_listeners_hold_in_every_role(engine: AsyncEngine, pools: Pools, role: str) -> None:
    """Those of engine, dialect and pool; those that come later, for the engine and its dialect."""
    heard: list[str] = []
    target = engine.sync_engine
    event.listen(target, "checkout", lambda *_: heard.append("checkout"))
    event.listen(target, "connect", lambda *_: heard.append("connect"))
    routed = getattr(pools, role)
    event.listen(target, "do_connect", lambda *_: heard.append("do_connect"))
    event.listen(target, "before_cursor_execute", lambda *_: heard.append("before_cursor_execute"))
    connection = await take(routed)
    await connection.ask("SELECT 1")
    await connection.close()
    assert heard == ["do_connect", "connect", "checkout", "before_cursor_execute"]


async def test_the_isolation_level_of_its_options_never_reaches_reads(engine: AsyncEngine, pools: Pools) -> None:
    """Not by the listener that it has on engine_connect, and not in the connection's second use."""
    for _ in range(3):
        connection = await take(pools.reads)
        assert await connection.ask("SHOW transaction_isolation") == "read committed"
        assert not connection.connection.connection.driver_connection.is_in_transaction()
        await connection.close()


async def test_closing_leaves_nothing_on_the_engine(engine: AsyncEngine) -> None:
    """Two Routers on one engine: each leaves by itself, also when its owner has disposed of it meanwhile."""
    before = len(engine.sync_engine.pool.dispatch.connect)
    one, two = pools_of(engine), pools_of(engine)
    for pools in (one, two):
        for routed in (pools.writes, pools.reads):
            connection = await take(routed)
            await connection.close()
    await engine.dispose()
    await one.close(2.0)
    for routed in (two.writes, two.reads):
        connection = await take(routed)
        assert await connection.ask("SELECT 1") == 1
        await connection.close()
    await two.close(2.0)
    assert len(engine.sync_engine.pool.dispatch.connect) == before
    assert not engine.sync_engine.pool.dispatch.checkin


@pytest.mark.parametrize(
    "options",
    [
        {"poolclass": NullPool},
        {"poolclass": AsyncAdaptedQueuePool, "pool_size": 2},
        {"execution_options": {"isolation_level": "REPEATABLE READ", "mine": 1}},
        {"isolation_level": "SERIALIZABLE"},
    ],
    ids=str,
)
async def test_any_engine_option_is_obeyed(cluster: Cluster, options: dict[str, Any]) -> None:
    """What the pool that is asked for does not take is not given to it."""
    pools = pools_of(cluster.primary.url, **options)
    for routed in (pools.writes, pools.reads):
        connection = await take(routed)
        assert await connection.ask("SELECT 1") == 1
        await connection.close()
        assert isinstance(routed.pool, options.get("poolclass", AsyncAdaptedQueuePool))
    await pools.close(2.0)


async def test_a_pool_serves_as_a_model_for_each_role(cluster: Cluster) -> None:
    """`pool=` makes the connections of all roles, from pools like it."""
    model = create_async_engine(cluster.primary.url, pool_size=1)
    pools = pools_of(cluster.primary.url, pool=model.sync_engine.pool)
    write, read = await take(pools.writes), await take(pools.reads)
    assert await write.ask("SHOW transaction_read_only") == "off"
    assert await read.ask("SHOW transaction_read_only") == "on"
    await write.close()
    await read.close()
    await pools.close(2.0)
    await model.dispose()


async def test_instrumentation_may_come_later(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are made by what `sqlalchemy.ext.asyncio.create_async_engine` is when they are made; pools have names."""
    made: list[str] = []
    plain = extension.create_async_engine

    def instrumented(*args: Any, **kw: Any) -> AsyncEngine:
        engine = plain(*args, **kw)
        made.append(str(engine.sync_engine.pool.logging_name))
        return engine

    monkeypatch.setattr(extension, "create_async_engine", instrumented)
    pools = pools_of(cluster.primary.url)
    assert pools.writes
    assert pools.reads
    assert pools.monitoring
    assert made == ["node.writing", "node.reading", "node.monitoring"]
    await pools.close(2.0)
