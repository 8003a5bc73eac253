"""The mutation suite: the checkers convict every known-bad router, and acquit lagwise in the same scenario."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from lagwise._decide.view import Reading
from lagwise._nodes import positions, probe
from lagwise._nodes.positions import Positions
from lagwise._nodes.prober import Prober
from lagwise.testing import Cluster, wait_until
from lagwise.testing.history import Recorder, answers, staleness_bound

from . import mutants
from .application import prepare, survivors
from .clients import Client, pause, paused_at_the_primarys_position, resume, routed, seen_at_the_primarys_position
from .judging import BOTH, convicted, mutate

pytestmark = pytest.mark.usefixtures("register")


@BOTH
async def test_token_before_commit(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """Replicas that stand between a write and its COMMIT do not have it; a position from there says they do."""
    mutate(monkeypatch, mutants.token_before_commit, bad)
    ann = Client("ann", Recorder())
    async with routed(cluster) as db:

        async def meanwhile() -> None:  # another commit takes the replicas past the write, and they stop there
            await cluster.primary.execute("SELECT pg_logical_emit_message(true, 'test', 'noise')")
            await paused_at_the_primarys_position(cluster, db)

        await ann.write(db, key, meanwhile)
        await ann.read(db, key)
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_write_position_under_asynchronous_commit(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool
) -> None:
    """Under synchronous_commit=off the log is written later: only the insert position covers the commit."""
    mutate(monkeypatch, mutants.write_position, bad)
    ann = Client("ann", Recorder())
    await cluster.primary.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await cluster.primary.execute("ALTER SYSTEM SET synchronous_commit = off")
    await cluster.primary.execute("SELECT pg_reload_conf()")
    try:
        async with routed(cluster) as db:
            await ann.write(db, key)  # wakes the WAL writer, should it be in its deep sleep
            for _ in range(10):  # until the log of her commit was still unwritten when its position was asked for
                await resume(cluster)
                await paused_at_the_primarys_position(cluster, db)
                await ann.write(db, key)
                unwritten = await cluster.primary.fetchval("SELECT pg_current_wal_lsn() < pg_current_wal_insert_lsn()")
                await ann.read(db, key)
                # What is unwritten now may be log of the server's own, which came after her commit was written.
                if unwritten and (convicted(ann.recorder) or not bad):
                    break
    finally:
        await cluster.primary.execute("ALTER SYSTEM RESET ALL")
        await cluster.primary.execute("SELECT pg_reload_conf()")
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_earlier_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """A position that was asked for before a COMMIT does not cover it, however late its answer arrives."""
    mutate(monkeypatch, mutants.earlier_answer, bad)
    ann, bob = Client("ann", Recorder()), Client("bob", Recorder())
    asked, under_way, answer, arrived = probe.ask, asyncio.Event(), asyncio.Event(), asyncio.Event()
    after_commit = Positions.after_commit

    async def slowly(driver: Any, **how: Any) -> Reading:
        reading = await asked(driver, **how)
        under_way.set()
        await answer.wait()
        return reading

    async def noted(shared: Positions, driver: Any) -> Reading | None:
        if under_way.is_set():
            arrived.set()
        return await after_commit(shared, driver)

    async with routed(cluster) as db, asyncio.TaskGroup() as group:
        monkeypatch.setattr(positions, "ask", slowly)
        monkeypatch.setattr(Positions, "after_commit", noted)
        group.create_task(bob.write(db, f"{key}-of-bob"))
        await under_way.wait()
        await paused_at_the_primarys_position(cluster, db)
        writing = asyncio.create_task(ann.write(db, key))
        await arrived.wait()  # her COMMIT has succeeded, and bob's question is still under way
        answer.set()
        await writing
        await ann.read(db, key)
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@pytest.fixture(scope="module")
async def forked() -> AsyncIterator[Cluster]:
    """A cluster after a failover: replica-1 leads, the old primary goes on, replica-2 follows it past the fork."""
    async with Cluster(replicas=2) as cluster:
        await prepare(cluster)
        await cluster.promote("replica-1")
        async with cluster["primary"].connect() as old:
            junk = "SELECT pg_logical_emit_message(true, 'junk', repeat('x', 9999)) FROM generate_series(1, 200)"
            await old.execute(junk)
            end = await old.fetchval("SELECT pg_current_wal_flush_lsn() - '0/0'")
        past = partial(cluster["replica-2"].fetchval, "SELECT pg_last_wal_replay_lsn() - '0/0' >= $1", end)
        await wait_until(past, what="replica-2 is past the fork")
        yield cluster


@BOTH
async def test_writes_ignore_the_token(forked: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """A process that has not noticed a promotion learns of it from the client's token, before it writes."""
    mutate(monkeypatch, mutants.writes_ignore_the_token, bad)
    ann = Client("ann", Recorder())
    # This Router cannot see the new primary at first, as after a promotion before its next probe.
    forked["replica-1"].proxy.cut()
    async with routed(forked, probe_interval=60) as unaware, asyncio.timeout(30):
        forked["replica-1"].proxy.heal()
        async with routed(forked) as aware:
            await ann.write(aware, key)
        await ann.write(unaware, key)
    survived = await survivors(forked)
    assert convicted(ann.recorder, survived=survived) == ({"monotonic-writes"} if bad else set())


@BOTH
async def test_timeline_blind(forked: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """A replica past the fork has higher positions than the new primary, and none of its writes."""
    mutate(monkeypatch, mutants.timeline_blind, bad)
    ann = Client("ann", Recorder())
    forked["primary"].proxy.cut()
    try:
        async with routed(forked) as db:
            await ann.write(db, key)
            await ann.read(db, key)
    finally:
        forked["primary"].proxy.heal()
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_received_is_fresh(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """Replicas that are cut off have replayed all they received, and are older every second."""
    mutate(monkeypatch, mutants.received_is_fresh, bad)
    ann, bob = (Client(name, Recorder()) for name in ("ann", "bob"))
    bob.recorder = ann.recorder
    for replica in cluster.replicas:
        await cluster.partition(replica)
        gone = partial(replica.fetchval, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
        await wait_until(gone, what="the receiver has noticed")
    async with routed(cluster, max_lag=0.3, sticky_window=0.3) as db:
        await ann.write(db, key)
        await asyncio.sleep(0.4)  # the bound itself
        await bob.read(db, key)
    assert convicted(ann.recorder, partial(staleness_bound, seconds=0.3)) == ({"staleness-bound"} if bad else set())


@BOTH
async def test_error_counts_as_fresh(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """A replica that does not say how far it is may be anywhere."""
    read, failing = Prober.read, False

    async def sometimes(prober: Prober) -> Reading:
        reading = await read(prober)
        if failing and reading.role == "replica":
            raise TimeoutError
        return reading

    monkeypatch.setattr(Prober, "read", sometimes)
    mutate(monkeypatch, mutants.error_counts_as_fresh, bad)
    ann = Client("ann", Recorder())
    async with routed(cluster) as db:
        await seen_at_the_primarys_position(db)
        await pause(cluster)
        failing = True
        await ann.write(db, key)
        await ann.read(db, key)
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_floor_of_another(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """That one replica has caught up says nothing of the other."""
    mutate(monkeypatch, mutants.floor_of_another, bad)
    ann = Client("ann", Recorder())
    async with routed(cluster) as db:
        await seen_at_the_primarys_position(db)
        await cluster.pause_replay("replica-2")
        await ann.write(db, key)
        await cluster.caught_up()
        for _ in range(60):  # each time a mutant has one chance in four, at least, to be wrong
            await ann.read(db, key)
    assert convicted(ann.recorder) == ({"read-your-writes", "monotonic-reads"} if bad else set())


@BOTH
async def test_check_then_subscribe(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """A wake-up that comes while nobody listens yet is a request that hangs until the next one."""
    ann = Client("ann", Recorder())
    async with routed(cluster, probe_interval=60, probe_timeout=4, guarantee="session") as db:
        mutate(monkeypatch, mutants.check_then_subscribe, bad)
        await ann.read(db, key)  # and waits until it is known how much was seen
    assert convicted(ann.recorder, partial(answers, within=3)) == ({"answers"} if bad else set())


@BOTH
async def test_window_shorter_than_lag(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """When the token is gone, every replica in rotation must be younger than the write it stood for."""
    mutate(monkeypatch, mutants.window_shorter_than_lag, bad)
    ann = Client("ann", Recorder())
    async with routed(cluster, max_lag=0.3, sticky_window=0.3) as db:
        await paused_at_the_primarys_position(cluster, db)
        await ann.write(db, key)
        await asyncio.sleep(db.policy.sticky_window)  # the window itself: now the cookie is gone
        ann.token = type(ann.token)()
        await ann.read(db, key)
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_reads_leave_no_trace(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """Under guarantee="session" a client that has read from one replica does not go back in time on another."""
    mutate(monkeypatch, mutants.reads_leave_no_trace, bad)
    ann = Client("ann", Recorder())
    bob = Client("bob", ann.recorder)
    async with routed(cluster, guarantee="session") as db:
        await seen_at_the_primarys_position(db)
        await cluster.pause_replay("replica-2")
        await bob.write(db, key)
        await cluster.caught_up()
        db.drain("replica-2")
        await ann.read(db, key)
        db.undrain("replica-2")
        db.drain("replica-1")
        await ann.read(db, key)
    assert convicted(ann.recorder) == ({"monotonic-reads"} if bad else set())
