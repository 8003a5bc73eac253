"""A read is answered while a node can answer it, whatever happens to the node it was sent to."""

import asyncio
import os
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import NoReplica, Policy, Router
from lagwise.fastapi import ReadSession, lifespan
from lagwise.testing import Cluster, wait_until
from lagwise.testing.replication import configure
from tests.kit.application import Item
from tests.kit.load import errors, loaded, many
from tests.kit.routers import QUICK, in_rotation, router
from tests.kit.serving import client, served


@pytest.fixture(name="db")
def soon(quick: Router) -> Router:
    """A fault is noticed soon."""
    return quick


READERS = 50
READS = int(os.environ.get("LAGWISE_TEST_READS", "2000"))


async def read(db: Router) -> float:
    """One read; how long it took, seconds."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with db.read() as session:
        await session.scalar(select(Item.id).limit(1))
    return loop.time() - start


def under_load(db: Router, reads: int) -> AbstractAsyncContextManager[list[float | Exception]]:
    """Fifty readers while the block runs."""
    return loaded(lambda: read(db), readers=READERS, reads=reads)


@pytest.mark.parametrize("fault", ["kill", "restart", "terminate_backends", "cut"])
async def test_no_read_fails(cluster: Cluster, db: Router, fault: str) -> None:
    """A replica is killed, restarted, cut off, or drops every connection, under fifty readers: no read fails."""
    async with under_load(db, READS) as results:
        await getattr(cluster, fault)("replica-1")
    assert errors(results) == []
    assert len(results) >= READS


async def test_a_connection_that_breaks_while_it_is_set_up(cluster: Cluster) -> None:
    """The node dies between connecting and the driver's own set-up: the read is another node's."""
    broken = create_async_engine(cluster.replicas[0].url)
    met: list[str] = []

    def breaks(connection: Any, _record: Any) -> None:
        met.append("connect")
        connection.driver_connection.terminate()

    # The monitor's own connection is of a pool apart, and opened before.
    async with Router(cluster.primary.url, {"replica-1": broken}, policy=QUICK) as db:
        await in_rotation(db, "replica-1")
        event.listen(broken.sync_engine, "connect", breaks, insert=True)
        async with db.read() as session:
            assert not await session.scalar(text("SELECT pg_is_in_recovery()"))
    assert met
    await broken.dispose()


async def test_without_the_router_they_fail(cluster: Cluster) -> None:
    """The same kill under plain sessions: readers meet it."""
    engine = create_async_engine(cluster.replicas[0].url, pool_size=20)

    async def plain(_: int) -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.01)"))

    working = asyncio.create_task(many(400, plain, at_once=20))
    await wait_until(lambda: engine.pool.checkedout() > 10, what="plain readers")  # type: ignore[attr-defined]
    await cluster.kill("replica-1")
    assert errors(await working) != []
    await engine.dispose()


async def test_a_recovery_conflict_is_tried_elsewhere(cluster: Cluster, db: Router) -> None:
    """The replica cancels the read in favour of replay (40001): another node answers it."""
    replica = cluster["replica-1"]
    await configure(replica, "max_standby_streaming_delay", "0")
    db.drain("replica-2")
    slow = text("SELECT count(*) FROM item, pg_sleep(5) WHERE name <> 'conflict'")
    try:
        await cluster.primary.execute("INSERT INTO item (name) SELECT 'conflict' FROM generate_series(1, 1000)")
        await cluster.caught_up()

        async def conflicting() -> int:
            async with db.read() as session:
                assert session.info["lagwise.route"].node == "replica-1"
                await session.scalar(slow)
                return int(session.info["lagwise.route"].node == "primary")

        reading = asyncio.create_task(conflicting())

        async def started() -> bool:
            running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(5)%'"
            return bool(await replica.fetchval(running) > 1)

        await wait_until(started, what="the slow read")
        await cluster.primary.execute("DELETE FROM item WHERE name = 'conflict'")
        await cluster.primary.execute("VACUUM item")
        assert await reading == 1
    finally:
        await configure(replica, "max_standby_streaming_delay", "30s")


async def test_a_read_block_is_tried_elsewhere_too(cluster: Cluster, db: Router) -> None:
    """`db.read.begin()` hands out nothing before its first statement either."""
    db.drain("replica-2")
    async with db.read.begin() as session:
        await cluster.kill("replica-1")
        await session.execute(select(Item).limit(1))
        assert session.info["lagwise.route"].node == "primary"


async def test_what_was_handed_out_is_not_repeated(cluster: Cluster, db: Router) -> None:
    """After the first result a lost connection is the caller's to know: the error is SQLAlchemy's own."""
    db.drain("replica-2")
    async with db.read(snapshot=True) as session:
        await session.execute(select(Item).limit(1))
        await cluster.terminate_backends("replica-1")
        with pytest.raises(DBAPIError):
            await session.execute(text("SELECT pg_sleep(0.2)"))


async def test_dead_connections_to_the_primary_cost_no_read(cluster: Cluster) -> None:
    """Without replicas a restarted primary is found again by the reads themselves."""
    async with Router(cluster.primary.url, policy=QUICK) as db:
        await asyncio.gather(*(read(db) for _ in range(10)))
        await cluster.restart("primary")
        await wait_until(lambda: db.view.primary is not None, what="the primary")
        assert errors(await many(20, lambda _: read(db), at_once=10)) == []


async def test_a_black_hole_without_any_time_out(cluster: Cluster, db: Router) -> None:
    """Packets are swallowed, sockets stay open, nobody set a time-out: 0 errors, and nobody waits for TCP."""
    async with under_load(db, READS) as results:
        await cluster.black_hole("replica-1")
        await in_rotation(db, "replica-2")
        await wait_until(
            lambda: db.pools["replica-1"].load() == 0, timeout=20, what="the reads in flight to be cut off"
        )
        before = len(results)
        await wait_until(lambda: len(results) > before + 500, what="reads after the eviction")
    assert errors(results) == []


async def test_a_black_hole_of_the_network_while_connecting(cluster: Cluster) -> None:
    """A pool with no open connection meets the black hole first: its reads too are cut off and run elsewhere."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.black_hole("replica-1")
        assert errors(await many(20, lambda _: read(db), at_once=20)) == []


async def test_a_driver_time_out_is_tried_elsewhere_once(cluster: Cluster) -> None:
    """With command_timeout set, a silent replica costs that long; a slow statement is not run a third time."""
    arguments = {"command_timeout": 0.3, "timeout": 1}
    async with router(cluster, QUICK, connect_args=arguments) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await asyncio.gather(*(read(db) for _ in range(20)))
        await cluster.black_hole("replica-1")
        assert errors(await many(40, lambda _: read(db), at_once=20)) == []
        await cluster.heal("replica-1")
        with pytest.raises(TimeoutError):
            async with db.read() as session:
                await session.execute(text("SELECT pg_sleep(3)"))


async def test_a_time_out_of_a_silent_node_is_not_the_statements(cluster: Cluster) -> None:
    """The read meets a silent replica, then one that is only slow: it has run to its time-out there once."""
    slow = make_url(cluster.nodes["replica-2"].direct_url).port
    statement = text(f"SELECT CASE current_setting('port') WHEN '{slow}' THEN pg_sleep(4)::text ELSE 'read' END")

    async def slow_on_one() -> Any:
        async with db.read() as session:
            return await session.scalar(statement)

    # The last node has that long for an answer, on a machine that does much else.
    async with router(cluster, QUICK, connect_args={"command_timeout": 0.6, "timeout": 1}) as db:
        await in_rotation(db, "replica-1", "replica-2")
        db.drain("replica-2")
        await read(db)  # a connection is open
        await cluster.black_hole("replica-1")
        reading = asyncio.create_task(slow_on_one())
        await wait_until(lambda: db.pools["replica-1"].load() > 0, what="the read to be on its way")
        db.undrain("replica-2")
        assert await reading == "read"


async def test_who_is_turned_away_twice_at_once(cluster: Cluster) -> None:
    """A probe and a statement find the node silent at the same moment: who waits to connect hears of it once."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.black_hole("replica-1")
        traffic = db.pools["replica-1"].traffic
        reads = [asyncio.create_task(read(db)) for _ in range(20)]
        attempts = db.pools["replica-1"].reads.attempts
        await wait_until(lambda: bool(attempts._running), what="a read that waits to connect")
        traffic.turn_away()
        traffic.turn_away()
        assert errors(await asyncio.gather(*reads, return_exceptions=True)) == []


async def test_the_fall_back_budget(cluster: Cluster) -> None:
    """Both replicas down: no more sessions than the budget read from the primary, the rest get NoReplica."""
    policy = Policy(probe_interval=0.1, probe_timeout=0.3, fall_back_limit=5)
    async with router(cluster, policy) as db:
        await in_rotation(db, "replica-1", "replica-2")
        for replica in cluster.replicas:
            await cluster.kill(replica)
        await in_rotation(db)
        held = [db.read() for _ in range(5)]
        for session in held:
            await session.__aenter__()
        with pytest.raises(NoReplica, match="fall_back_limit"):
            await read(db)
        await held.pop().close()
        await read(db)
        with pytest.raises(NoReplica, match="fall_back_limit"):
            async with db.read():
                await read(db)
        async with db.read(primary=True), db.write():
            pass  # those who ask for the primary are not the herd
        for session in held:
            await session.close()
        for replica in cluster.replicas:
            await cluster.start(replica)
        await in_rotation(db, "replica-1", "replica-2")
        assert errors(await many(50, lambda _: read(db), at_once=20)) == []


async def test_an_exhausted_pool_says_so(cluster: Cluster) -> None:
    """The error names the pool and its numbers."""
    async with Router(cluster.primary.url, pool_size=1, pool_timeout=0.05) as db:
        async with db.read(snapshot=True) as holding:
            await holding.execute(text("SELECT 1"))
            with pytest.raises(PoolTimeout, match="no connection to primary became free in time: 1 of 1 are in use"):
                await asyncio.create_task(read(db))  # the task that holds one would be given another
        assert db.pools["primary"].tallies["reading"].timeouts == 1


@pytest.mark.parametrize("options", [{"primary": True}, {"snapshot": True}], ids=["on the primary", "a snapshot"])
async def test_a_goodbye_to_a_dead_connection_costs_no_read(
    cluster: Cluster, db: Router, options: dict[str, bool]
) -> None:
    """The result was read; that ROLLBACK finds nobody there is not the caller's concern."""
    async with db.read(**options) as session:
        assert await session.scalar(text("SELECT 1")) == 1
        for node in cluster.nodes.values():
            await cluster.terminate_backends(node)
    assert db.pools["primary"].writing.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_losing_the_last_node_inside_an_endpoint_is_a_503(cluster: Cluster) -> None:
    """The session was open when its node, and every other, went: the client is told to come back, not 500."""
    app = FastAPI(lifespan=lifespan(db := router(cluster, QUICK)))

    @app.get("/")
    async def read(session: ReadSession) -> None:
        for node in cluster.nodes.values():
            await cluster.kill(node)
        await session.execute(text("SELECT 1"))

    async with served(app) as url, client(url) as http:
        await in_rotation(db, "replica-1", "replica-2")
        answer = await http.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_refused_read_is_told_where_it_has_failed(cluster: Cluster) -> None:
    """No other replica, and no primary for reads: the error does not show the node as if it were fit."""
    policy = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120, fall_back=False)
    async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=policy) as db:
        await in_rotation(db, "replica-1")
        async with db.read() as session:
            with pytest.raises(NoReplica, match="replica-1: this read has failed there"):
                await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
