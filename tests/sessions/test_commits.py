"""What counts as a write: a COMMIT that succeeded, or one nobody knows the outcome of."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from lagwise import Causality, Policy, Router
from lagwise._nodes import probe
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.routers import router

# A connection class of the application's own: the position is asked for after COMMIT, not in its message.
ASKING = {"connect_args": {"connection_class": asyncpg.Connection}}


async def test_a_commit_marks_the_client_and_a_rollback_does_not(db: Router) -> None:
    """Only what was committed counts; an empty session counts for nothing."""
    with Causality() as seen:
        async with db.write() as session:
            session.add(Item(name="never"))
            await session.flush()
            await session.rollback()
        async with db.write.begin():
            pass
        async with db.read() as session:
            await session.execute(select(Item).limit(1))
            await session.commit()
        assert (seen.grew, str(seen.token)) == (False, "")
        async with db.write.begin() as session:
            session.add(Item(name="once"))
        assert seen.grew


async def test_a_released_savepoint_is_no_commit(db: Router) -> None:
    """after_commit fires for savepoints too; nothing is visible to others yet."""
    with Causality() as seen:
        async with db.write() as session:
            async with session.begin_nested():
                session.add(Item(name="inside"))
            assert not seen.grew
            await session.commit()
        assert seen.grew


async def test_the_position_covers_the_commit(cluster: Cluster, db: Router) -> None:
    """A replica that has replayed the token's position shows the row: many times, with asynchronous commit."""
    for turn in range(60):
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("SET LOCAL synchronous_commit = off"))
                session.add(item := Item(name=f"covered {turn}"))
            async with db.read() as session:
                assert await session.get(Item, item.id) is not None, session.info
            (position,) = seen.token
            assert (db.view.system, 1, 0) == (position.system, position.timeline, position.in_doubt_at)


async def test_a_refused_commit_is_no_write(cluster: Cluster, db: Router) -> None:
    """A deferred constraint fails at COMMIT: the error is the caller's, the client saw no write."""
    await cluster.primary.execute("""
        CREATE TABLE IF NOT EXISTS deferred (id int PRIMARY KEY, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED)
    """)
    with Causality() as seen:
        with pytest.raises(DBAPIError):
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO deferred VALUES (1, -1)"))
        assert (seen.grew, str(seen.token)) == (False, "")
        async with db.write() as session:
            await session.execute(text("INSERT INTO deferred VALUES (1, -1)"))
            with pytest.raises(DBAPIError):
                await session.commit()
        assert (seen.grew, str(seen.token)) == (False, "")


async def test_a_commit_cut_off_by_cancellation_is_in_doubt(cluster: Cluster, db: Router) -> None:
    """Cancelled while COMMIT is on its way: reads stay on the primary, where the truth is."""
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)
    with Causality() as seen:
        async with db.write() as session:
            session.add(Item(name="in doubt"))
            await session.flush()
            cluster.primary.proxy.latency = 5.0
            committing = asyncio.create_task(session.commit())
            await asyncio.wait((committing,), timeout=0.05)
            committing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await committing
            cluster.primary.proxy.latency = 0.0
            await wait_until(lambda: db.view.primary is not None, what="the primary")
        assert seen.grew
        assert [position.in_doubt_at > 0 for position in seen.token] == [True]
        async with db.read() as session:
            assert (
                session.info["lagwise.route"].node,
                session.info["lagwise.route"].reason,
            ) == ("primary", "sticky")


async def test_a_connection_lost_at_commit_is_in_doubt(cluster: Cluster, db: Router) -> None:
    """The network breaks under COMMIT: the caller gets the error, the client stays on the primary."""
    with Causality() as seen:
        with pytest.raises((DBAPIError, OSError)):
            async with db.write() as session:
                session.add(Item(name="lost"))
                await session.flush()
                await cluster.cut("primary")
                await session.commit()
        assert seen.grew
        assert [position.in_doubt_at > 0 for position in seen.token] == [True]


async def test_a_position_that_cannot_be_read_leaves_the_client_on_the_primary(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMMIT succeeded, then its connection stalls: sticky, not unprotected, and not for ever."""
    policy = Policy(probe_interval=60, max_lag=120, sticky_window=120, probe_timeout=1.0)
    async with router(cluster, policy, **ASKING) as db:
        with Causality() as seen:
            async with db.write() as session:
                session.add(Item(name="unplaced"))
                await session.flush()
                with monkeypatch.context() as patch:
                    patch.setattr(probe, "_READ_ALONE", "SELECT pg_sleep(60)")
                    await session.commit()
            assert [position.in_doubt_at > 0 for position in seen.token] == [True]
            async with db.read() as session:
                assert session.info["lagwise.route"].reason == "sticky"
    # The server does not notice that its client is gone, and later tests ask whether any query runs.
    await cluster.primary.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


async def test_concurrent_writers_share_positions(cluster: Cluster) -> None:
    """Where COMMIT cannot say it itself, fifty at once need fewer readings of the position, and each is covered."""
    async with router(
        cluster, Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120), pool_size=50, **ASKING
    ) as db:

        async def write(number: int) -> bool:
            with Causality():
                async with db.write.begin() as session:
                    session.add(item := Item(name=f"together {number}"))
                async with db.read() as session:
                    return await session.get(Item, item.id) is not None

        await asyncio.gather(*map(write, range(50)))
        async with AsyncExitStack() as held:  # the primary's connections for reads are open too
            for _ in range(50):
                await (await held.enter_async_context(db.read(primary=True))).connection()
        before = cluster.primary.proxy.round_trips
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)  # all reads on the primary: one trip each
        assert await asyncio.gather(*map(write, range(50))) == [True] * 50
        positions = cluster.primary.proxy.round_trips - before - 50 * (3 + 1)
        assert 0 < positions < 25
