"""Which node serves: roles as discovered, lag as measured, choice as weighted, faults as met."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from lagwise import Causality, NoPrimary, NoReplica, Policy, Replica, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.routers import in_rotation, router

SHORT = Policy(max_lag=2, sticky_window=2, probe_interval=0.05)
QUICK = Policy(max_lag=0.5, sticky_window=0.5, probe_interval=0.05, catch_up=0.02)


async def answering(db: Router, **options: float | bool) -> tuple[str, str, bool]:
    """Node and reason of a read, and whether the server that answered is in recovery."""
    async with db.read(**options) as session:  # type: ignore[arg-type]
        route = session.info["lagwise.route"]
        return route.node, str(route.reason), bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


async def test_roles_are_discovered(cluster: Cluster) -> None:
    """With the URLs swapped, writes still go to the primary and reads to replicas."""
    one, two = cluster.replicas
    async with Router(one.url, [cluster.primary.url, two.url]) as db:
        await in_rotation(db, "primary", "replica-2")
        async with db.write.begin() as session:
            session.add(item := Item(name="swapped"))
        assert session.info["lagwise.route"].node == "replica-1"
        nodes = {(await answering(db))[::2] for _ in range(40)}
        assert {("primary", True), ("replica-2", True)} == nodes
        async with db.read(primary=True) as session:
            assert await session.get(Item, item.id) is not None


async def test_a_lagging_replica_leaves_the_rotation_and_comes_back(cluster: Cluster) -> None:
    """Beyond max_lag nobody reads there; when replay has resumed it is back by itself."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.pause_replay("replica-1")
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('unseen')")
        await in_rotation(db, "replica-2")
        assert {"replica-2"} == {(await answering(db))[0] for _ in range(20)}
        await cluster.resume_replay("replica-1")
        await in_rotation(db, "replica-1", "replica-2")


async def test_an_idle_primary_makes_nobody_look_stale(cluster: Cluster) -> None:
    """Nothing is written for longer than max_lag: both replicas stay in rotation throughout."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        loop = asyncio.get_running_loop()
        end, stalest = loop.time() + 3 * QUICK.max_lag, 0.0

        def watched() -> bool:
            nonlocal stalest
            stalest = max(stalest, *(node.staleness(loop.time()) for node in db.view.rotation))
            return loop.time() > end

        await wait_until(watched, what="an idle while")
        assert stalest < QUICK.max_lag


async def test_log_that_nobody_flushes_makes_nobody_look_stale(cluster: Cluster) -> None:
    """Reads on an idle primary set hint bits, and log them: replicas that wait for the flush miss no commit."""
    unflushed = "SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()"
    async with router(cluster, SHORT) as db, cluster.primary.connect() as reader:
        for _ in range(5):  # until the monitor has not made the server flush at this very moment
            await reader.execute("INSERT INTO item (name) SELECT 'hinted' FROM generate_series(1, 2000)")
            await reader.execute("CHECKPOINT")
            await cluster.caught_up()
            await in_rotation(db, "replica-1", "replica-2")
            await reader.execute("BEGIN")
            await reader.fetch("SELECT * FROM item")
            await reader.execute("ROLLBACK")
            if left := await reader.fetchval(unflushed):
                break
        loop, stalest = asyncio.get_running_loop(), 0.0
        assert left > 0  # or this shows nothing

        def watched() -> bool:
            nonlocal stalest
            stalest = max(stalest, *(node.staleness(loop.time()) for node in db.view.nodes if node.name != "primary"))
            return loop.time() > end

        end = loop.time() + 2 * SHORT.max_lag
        await wait_until(watched, what="an idle while")
        assert stalest < SHORT.max_lag


async def test_a_dead_receiver_is_noticed(cluster: Cluster) -> None:
    """Received equals replayed and yet the replica falls behind: staleness grows, and it leaves."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.partition("replica-1")
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('unseen')")
        await in_rotation(db, "replica-2")


async def test_all_lagging_reads_use_the_primary(cluster: Cluster) -> None:
    """No replica within max_lag: the primary serves, read-only, and says why."""
    async with router(cluster, QUICK) as db:
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('unseen')")
        await in_rotation(db)
        assert await answering(db) == ("primary", "all-lagging", False)


async def test_fall_back_false_keeps_reads_off_the_primary(cluster: Cluster) -> None:
    """Then the answer is NoReplica, which names every node and why."""
    policy = Policy(max_lag=0.5, sticky_window=0.5, probe_interval=0.05, catch_up=0.02, fall_back=False)
    async with router(cluster, policy) as db:
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        with Causality():
            async with db.write.begin() as session:
                session.add(Item(name="unseen"))
            with pytest.raises(NoReplica, match=r"replica-1: .*replica-2: "):
                await answering(db)


async def test_a_read_waits_for_a_replica_that_is_about_to_catch_up(cluster: Cluster) -> None:
    """Within catch_up a replica that replays the write serves the read; the monitor wakes it."""
    policy = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120, catch_up=10)
    async with router(cluster, policy) as db:
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        with Causality():
            async with db.write.begin() as session:
                session.add(Item(name="awaited"))
            reading = asyncio.create_task(answering(db))
            await cluster.resume_replay("replica-2")
            assert await reading == ("replica-2", "caught-up", True)


async def test_bounded_staleness_is_proven_not_assumed(cluster: Cluster) -> None:
    """max_staleness=0 reads what was committed before the session opened: mostly on replicas all the same."""
    served = Counter[str]()
    async with router(cluster, Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120)) as db:
        await in_rotation(db, "replica-1", "replica-2")
        for turn in range(20):
            await cluster.primary.execute(f"INSERT INTO item (name) VALUES ('bounded {turn}')")
            async with db.read(max_staleness=0.0) as session:
                found = (await session.scalars(select(Item).where(Item.name == f"bounded {turn}"))).all()
                served[session.info["lagwise.route"].reason] += 1
            assert len(found) == 1
        assert served["fresh"] > 10
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('bounded, paused')")
        assert (await answering(db))[1:] == ("fresh", True)
        assert await answering(db, max_staleness=0.0) == ("primary", "all-lagging", False)


async def test_weights_are_honoured(cluster: Cluster) -> None:
    """weight=3 takes about three times the reads of weight=1."""
    one, two = cluster.replicas
    async with Router(cluster.primary.url, {"big": Replica(one.url, weight=3), "small": two.url}) as db:
        await in_rotation(db, "big", "small")
        shares = Counter([(await answering(db))[0] for _ in range(400)])
        assert 2 < shares["big"] / shares["small"] < 6


async def test_the_less_loaded_replica_is_preferred(cluster: Cluster, db: Router) -> None:
    """Sessions that keep their connection count: a replica with ten of them gets fewer than a quarter."""
    held: list[AsyncSession] = []
    while sum(each.info["lagwise.route"].node == "replica-1" for each in held) < 10:
        session = await db.read().__aenter__()
        if session.info["lagwise.route"].node == "replica-1":
            await session.connection()  # from here on it keeps one
            held.append(session)
        else:
            await session.close()
    shares = Counter([(await answering(db))[0] for _ in range(200)])
    for session in held:
        await session.close()
    # Two draws by weight: only both of them on replica-1 lead there, one time in four.
    assert shares["replica-1"] < 90
    assert shares["replica-2"] > 110


async def test_draining(db: Router) -> None:
    """A drained replica gets no reads until it is let back."""
    db.drain("replica-1")
    assert {"replica-2"} == {(await answering(db))[0] for _ in range(20)}
    db.undrain("replica-1")
    await in_rotation(db, "replica-1", "replica-2")
    with pytest.raises(KeyError, match="no node is named 'replica-9'; there are primary, replica-1, replica-2"):
        db.drain("replica-9")


async def test_a_killed_replica_costs_no_read(cluster: Cluster, db: Router) -> None:
    """Kill -9 of a replica under readers: every read is answered, by somebody else."""
    done = asyncio.Event()

    async def reader() -> int:
        count = 0
        while not done.is_set():
            await answering(db)
            count += 1
        return count

    readers = [asyncio.create_task(reader()) for _ in range(8)]
    await cluster.kill("replica-1")
    await in_rotation(db, "replica-2")
    done.set()
    assert all(count > 0 for count in await asyncio.gather(*readers))


async def test_terminated_connections_cost_no_read(cluster: Cluster, db: Router) -> None:
    """Every pooled connection cut at the server: the next reads are answered all the same."""
    await asyncio.gather(*(answering(db) for _ in range(16)))
    for replica in cluster.replicas:
        await cluster.terminate_backends(replica)
    await asyncio.gather(*(answering(db) for _ in range(16)))


async def test_no_primary_is_a_named_error(cluster: Cluster) -> None:
    """Without a primary writes raise NoPrimary; reads go on; when it is back so are writes."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.stop("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary to be missed")
        with pytest.raises(NoPrimary, match="primary: unreachable"):
            async with db.write() as session:
                pass
        assert (await answering(db))[2]
        await cluster.start("primary")
        await wait_until(lambda: db.view.primary is not None, what="the primary")
        async with db.write.begin() as session:
            session.add(Item(name="back"))


async def test_engines_of_the_application(cluster: Cluster) -> None:
    """AsyncEngines are used as they are, stay open, and lose our listeners when the Router closes."""
    engines = [create_async_engine(node.url) for node in (cluster.primary, *cluster.replicas)]
    async with Router(engines[0], dict(zip(("a", "b"), engines[1:], strict=True))) as db:
        await in_rotation(db, "a", "b")
        async with db.write.begin() as session:
            session.add(Item(name="through your engine"))
        assert {"a", "b"} == {(await answering(db))[0] for _ in range(30)}
        assert engines[0].pool.checkedin() > 0  # type: ignore[attr-defined]
    for engine in engines:
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        await engine.dispose()


async def test_another_database_of_the_cluster_is_not_read(cluster: Cluster) -> None:
    """A replica's URL with another database's name: its rows are not ours, and no read session gets there."""
    await cluster.primary.execute("CREATE DATABASE archive")
    try:
        await cluster.caught_up()
        wrong = make_url(cluster.replicas[0].url).set(database="archive").render_as_string(hide_password=False)
        async with Router(cluster.primary.url, [wrong], policy=Policy(probe_interval=0.1, probe_timeout=5)) as db:
            await wait_until(lambda: db.view.node("replica-1").standing == "other-database", what="the reading")
            async with db.read() as session:
                found = await session.scalar(text("SELECT current_database()"))
            assert found == make_url(cluster.primary.url).database
    finally:
        await cluster.primary.execute("DROP DATABASE archive WITH (FORCE)")
