"""The mutation suite: the checkers convict every known-bad router, and acquit lagwise in the same scenario."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, params
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from lagwise._decide.view import Reading
from lagwise._nodes import positions, probe
from lagwise._nodes.positions import Positions
from lagwise._nodes.probe import Prober
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan, write_session
from lagwise.testing import Cluster, wait_until
from lagwise.testing.history import (
    SESSION,
    Checker,
    History,
    Operation,
    Recorder,
    Version,
    answers,
    check,
    staleness_bound,
)

from . import mutants
from .application import SECRET, get, prepare, put, survivors
from .conftest import Client, pause, paused_at_the_primarys_position, routed, seen_at_the_primarys_position
from .mutants import Mutant

BOTH = pytest.mark.parametrize("bad", [False, True], ids=["lagwise", "mutant"])


def convicted(recorder: Recorder, *guarantees: Checker, survived: Any = None) -> set[str]:
    """The guarantees that the checkers say were broken."""
    found = check(History(tuple(recorder.operations), survived), guarantees or SESSION)
    return {violation.guarantee for violation in found}


def mutate(patch: pytest.MonkeyPatch, mutant: Mutant, bad: bool) -> None:
    if bad:
        mutant(patch)


@pytest.fixture
def key() -> str:
    """A key that no other test has used."""
    return f"key-{uuid4().hex[:8]}"


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
            await paused_at_the_primarys_position(cluster, db)
            await ann.write(db, key)
            await ann.read(db, key)
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
    await cluster.pause_replay("replica-2")
    async with routed(cluster) as db:
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
    await pause(cluster)
    async with routed(cluster, max_lag=0.3, sticky_window=0.3) as db:
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
    await cluster.pause_replay("replica-2")
    async with routed(cluster, guarantee="session") as db:
        await bob.write(db, key)
        await cluster.caught_up()
        db.drain("replica-2")
        await ann.read(db, key)
        db.undrain("replica-2")
        db.drain("replica-1")
        await ann.read(db, key)
    assert convicted(ann.recorder) == ({"monotonic-reads"} if bad else set())


# Over HTTP, where cookies and the order of COMMIT and answer matter.


class Gated:
    """An application behind a gate: answers whose path is held wait there; `started` says which have begun."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.held: dict[str, asyncio.Event] = {}
        self.started: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        path = scope.get("path", "")

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.started.add(path)
                if path in self.held:
                    await self.held[path].wait()
            await send(message)

        await self.app(scope, receive, sending)


def application(db: Router, writing: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=SECRET)

    @app.put("/{key}/{value}")
    async def write(key: str, value: str, session: writing) -> dict[str, Any]:
        return await put(session, key, value)

    @app.get("/{key}")
    async def read(key: str, session: ReadSession) -> dict[str, Any]:
        return await get(session, key)

    return app


class Browser:
    """One user with a cookie jar, recorded."""

    def __init__(self, url: str) -> None:
        self.recorder = Recorder()
        self.http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def ask(self, path: str) -> Operation:
        """PUT /key/value or GET /key."""
        start, (key, _, value) = self.recorder.now(), path.partition("/")
        answer = (await self.http.request("PUT" if value else "GET", f"/{path}")).raise_for_status().json()
        done = Operation(
            client="ann",
            kind="write" if value else "read",
            key=key,
            value=answer["value"],
            version=Version(answer["timeline"], answer["number"]) if answer["number"] is not None else None,
            start=start,
            end=self.recorder.now(),
            node=answer["node"],
        )
        self.recorder.operations.append(done)
        return done


async def browsing(app: Any, scenario: Callable[[Browser], Awaitable[None]]) -> Recorder:
    """Run the scenario against the application behind uvicorn."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started or task.done(), what="uvicorn")
        browser = Browser(f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            async with browser.http:
                await scenario(browser)
        finally:
            server.should_exit = True
            await task
    return browser.recorder


def unopened(cluster: Cluster) -> Router:
    return Router(cluster.primary.url, [node.url for node in cluster.replicas])


@BOTH
async def test_cookie_overwritten_by_the_older_answer(cluster: Cluster, key: str, bad: bool) -> None:
    """Two answers arrive in the wrong order: the newer write's token is still there."""
    app = application(unopened(cluster), WriteSession)
    gate = Gated(mutants.one_cookie(app) if bad else app)

    async def scenario(ann: Browser) -> None:
        gate.held[f"/{key}/older"] = asyncio.Event()
        older = asyncio.create_task(ann.ask(f"{key}/older"))
        await wait_until(lambda: f"/{key}/older" in gate.started, what="the older write is committed")
        await cluster.caught_up()
        await pause(cluster)
        await ann.ask(f"{key}/newer")
        gate.held[f"/{key}/older"].set()
        await older
        await ann.ask(key)

    assert convicted(await browsing(gate, scenario)) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_commit_after_the_response(cluster: Cluster, key: str, bad: bool) -> None:
    """While COMMIT is held up nobody has been told that the write is done."""
    late = Annotated[AsyncSession, params.Depends(write_session)]  # FastAPI's default scope
    gate = Gated(application(unopened(cluster), late if bad else WriteSession))
    await cluster.primary.execute(HOLD)
    try:
        async with cluster.primary.connect() as holder:

            async def scenario(ann: Browser) -> None:
                await holder.execute("SELECT pg_advisory_lock(42)")
                write = asyncio.create_task(ann.ask(f"{key}/value"))
                await wait_until(lambda: holder.fetchval(HELD), what="COMMIT is held up")
                if f"/{key}/value" in gate.started:
                    await write
                    await ann.ask(key)
                await holder.execute("SELECT pg_advisory_unlock(42)")
                await write
                await ann.ask(key)
                await wait_until(lambda: holder.fetchval(NOT_HELD), what="COMMIT is through")

            recorder = await browsing(gate, scenario)
    finally:
        await cluster.primary.execute("DROP TRIGGER hold ON entry; DROP FUNCTION hold")
    assert convicted(recorder) == ({"read-your-writes"} if bad else set())


HELD = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
NOT_HELD = HELD.replace("> 0", "= 0")
HOLD = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON entry DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION hold();
"""
