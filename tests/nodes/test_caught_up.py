"""`db.caught_up()`: returns when every replica has what the primary had, and says who is behind when it cannot."""

import asyncio

import pytest

from lagwise import Causality, CausalToken, InvalidToken, NotCaughtUp, NotOpen, Policy, Router, RoutingError
from lagwise._nodes.prober import Prober
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import both_in_rotation, let_go, router
from tests.kit.sessions import count, write

NOTICING = Policy(probe_interval=0.1, probe_timeout=1, max_lag=60, sticky_window=60, catch_up=0)
_CREATE = "CREATE TABLE {} (id int)"


async def lags(db: Router) -> str:
    """The message of a wait that is over at once."""
    with pytest.raises(NotCaughtUp) as caught:
        await db.caught_up(timeout=0.2)
    return str(caught.value)


async def test_what_was_written_before_is_everywhere_afterwards(cluster: Cluster, db: Router) -> None:
    """A migration by another connection: when the wait is over, each replica has the table."""
    for turn in range(5):
        await cluster.primary.execute(_CREATE.format(f"migrated_{turn}"))
        token = await db.caught_up()
        for replica in cluster.replicas:
            assert await replica.fetchval(f"SELECT to_regclass('migrated_{turn}') IS NOT NULL")
        (position,) = token
        assert (position.system, position.timeline > 0, position.in_doubt_at) == (db.view.system, True, 0)
        await cluster.primary.execute(f"DROP TABLE migrated_{turn}")


async def test_it_waits_for_the_last_replica(still: Router, cluster: Cluster) -> None:
    """One of two shows it: that is not enough. The wait ends by itself when the other does, too."""
    await write(still, "for the last one")
    await cluster.resume_replay("replica-1")
    waiting = asyncio.create_task(still.caught_up())
    await wait_until(lambda: still._nodes.monitor._laggards, what="the wait has begun")
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert done == set()
    await cluster.resume_replay("replica-2")
    await asyncio.wait_for(waiting, 10)
    async with still.read() as session:
        assert await count(session, "for the last one") == 1


async def test_the_error_names_who_is_behind_and_by_how_much(still: Router, cluster: Cluster) -> None:
    """Both by bytes; and it is a TimeoutError and lagwise's own."""
    await write(still, "behind")
    said = await lags(still)
    assert [f"{name}: " in said for name in ("replica-1", "replica-2", "primary")] == [True, True, False]
    assert "bytes" in said
    assert "s behind" in said
    assert issubclass(NotCaughtUp, TimeoutError)
    assert issubclass(NotCaughtUp, RoutingError)
    await cluster.resume_replay("replica-2")
    await wait_until(lambda: still.view.rotation[0].name == "replica-2", what="replica-2 has replayed")
    assert "replica-2: " not in await lags(still)


async def test_who_is_waited_for(cluster: Cluster) -> None:
    """A replica that lags comes back by itself. One that cannot be reached, or is drained, serves no reads."""
    policy = Policy(probe_interval=0.1, probe_timeout=1, max_lag=0.5, sticky_window=60, catch_up=0)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        await cluster.pause_replay("replica-1")
        await write(db, "for those who serve reads")
        await wait_until(lambda: "replica-1 (lagging" in repr(db), what="it lags")
        assert "replica-1: " in await lags(db)
        waiting = asyncio.create_task(db.caught_up())
        await wait_until(lambda: db._nodes.monitor._laggards, what="the wait has begun")
        db.drain("replica-1")
        await asyncio.wait_for(waiting, 10)
        db.undrain("replica-1")
        assert "replica-1: " in await lags(db)
        await cluster.cut("replica-1")
        await wait_until(lambda: db.view.node("replica-1").reading is None, what="it is gone")
        await asyncio.wait_for(db.caught_up(), 10)


async def test_a_token_is_what_it_waits_for(cluster: Cluster, still: Router) -> None:
    """Not for what came after; an empty one needs nothing; a doubt means what the primary has now."""
    with Causality() as seen:
        await write(still, "of the token")
    await let_go(cluster, still)
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)
    await write(still, "after the token")
    assert await still.caught_up(seen.token, timeout=5) == await still.caught_up(str(seen.token), timeout=5)
    assert await still.caught_up(CausalToken(), timeout=0) == CausalToken()
    with Causality(seen.token) as doubtful:
        doubtful.doubt()
    with pytest.raises(NotCaughtUp):
        await still.caught_up(doubtful.token, timeout=0.2)
    with pytest.raises(InvalidToken):
        await still.caught_up("no token")


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True])
async def test_it_wants_seconds(db: Router, timeout: float) -> None:
    """A wait without a bound is none."""
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        await db.caught_up(timeout=timeout)


async def test_without_replicas_it_returns_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked."""
    async with Router(cluster.primary.url, policy=Policy(probe_interval=60)) as db:
        monkeypatch.setattr(Prober, "read", None)
        assert await db.caught_up(timeout=0) == CausalToken()


async def test_it_needs_an_open_router(cluster: Cluster) -> None:
    """Closed before, or meanwhile."""
    db = router(cluster, NOTICING)
    with pytest.raises(NotOpen):
        await db.caught_up()
    async with db:
        await both_in_rotation(db)
        await cluster.pause_replay("replica-1")
        await write(db, "never everywhere")
        waiting = asyncio.create_task(db.caught_up())
        await wait_until(lambda: db._nodes.monitor._laggards, what="the wait has begun")
    with pytest.raises(NotOpen):
        await asyncio.wait_for(waiting, 5)


async def test_waiting_neither_hurries_nor_slows_the_probes_for_reads(still: Router, cluster: Cluster) -> None:
    """A wait of half a minute asks ten times a second at most, and reads that wait are not counted as in vain."""
    monitor, counted = still._nodes.monitor, 0
    await write(still, "not soon")
    began = monitor.clock()
    read = Prober.read

    async def reading(prober: Prober) -> object:
        nonlocal counted
        counted += 1
        return await read(prober)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prober, "read", reading)
        with pytest.raises(NotCaughtUp):
            await still.caught_up(timeout=1)
    assert 3 < counted <= 3 * (monitor.clock() - began) / 0.1 + 3 + 3
    assert set(monitor.vain.values()) == {0}


async def test_a_failover_meanwhile(doomed: Cluster) -> None:
    """The wait goes on, for what the new primary has; the old one is not waited for."""
    async with router(doomed, NOTICING) as db:
        await both_in_rotation(db)
        await write(db, "before the failover")
        await doomed.pause_replay("replica-2")
        await doomed.primary.execute(_CREATE.format("before_failover"))
        waiting = asyncio.create_task(db.caught_up(timeout=60))
        await wait_until(lambda: db._nodes.monitor._laggards, what="the wait has begun")
        await doomed.kill("primary")
        await doomed.promote("replica-1")
        # Before it is heard of, replica-2 would have all that is known of any primary as soon as it replays.
        await wait_until(
            lambda: db.view.primary is not None and db.view.primary.name == "replica-1", what="the new one"
        )
        await doomed.resume_replay("replica-2")
        await doomed.follow("replica-2")
        token = await asyncio.wait_for(waiting, 30)
        assert [position.timeline for position in token] == [2]
        assert db.view.primary is not None
        assert db.view.primary.name == "replica-1"


async def test_without_a_primary_it_says_so(doomed: Cluster) -> None:
    """What the replicas must have is not known; a token still says it."""
    async with router(doomed, NOTICING) as db:
        await both_in_rotation(db)
        with Causality() as seen:
            await write(db, "before the primary died")
        await db.caught_up()
        await doomed.kill("primary")
        await wait_until(lambda: db.view.primary is None, what="it is gone")
        assert "no primary can be reached" in await lags(db)
        db.drain("primary")
        assert await db.caught_up(seen.token, timeout=5) != CausalToken()
