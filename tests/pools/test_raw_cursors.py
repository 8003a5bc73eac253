"""Listeners of the application's that use the driver's cursor: what they run is judged as the rest is."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from lagwise import ReadOnly, Router
from lagwise.testing import Cluster
from tests.kit.routers import LONG, catalog_read, nothing_is_asked

TENANT = text("SELECT current_setting('app.tenant', true)")
tenant: list[str] = []
"""The tenant of the moment, as an application's context variable has it; empty for none."""


class Tenants(Session):
    """A session class with listeners of its own."""


class AsyncTenants(AsyncSession):
    """Its asynchronous side."""

    sync_session_class = Tenants


def run(cursor: Any, command: str) -> None:
    """Run `command` for the tenant of the moment, if there is one."""
    for name in tenant:
        cursor.execute(f"{command} app.tenant = '{name}'")


def with_cursor(dbapi: Any, command: str) -> None:
    """As `run`, with a cursor of its own."""
    cursor = dbapi.cursor()
    run(cursor, command)
    cursor.close()


def call_driver(adapter: Any) -> None:
    """Set the tenant of the moment by the driver's own means."""
    if tenant:
        adapter.run_async(lambda driver: driver.execute(f"SET app.tenant = '{tenant[0]}'"))


LISTENERS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "before_cursor_execute, SET": ("engine", "before_cursor_execute", lambda _, cursor, *__: run(cursor, "SET")),
    "before_cursor_execute, SET LOCAL": (
        "engine",
        "before_cursor_execute",
        lambda _, cursor, *__: run(cursor, "SET LOCAL"),
    ),
    "begin, SET": ("engine", "begin", lambda connection: with_cursor(connection.connection, "SET")),
    "begin, SET LOCAL": ("engine", "begin", lambda connection: with_cursor(connection.connection, "SET LOCAL")),
    "engine_connect, SET": ("engine", "engine_connect", lambda connection: with_cursor(connection.connection, "SET")),
    "do_execute, SET": ("engine", "do_execute", lambda cursor, *_: run(cursor, "SET")),
    "checkout, SET": ("pool", "checkout", lambda dbapi, *_: with_cursor(dbapi, "SET")),
    "checkout, SET LOCAL": ("pool", "checkout", lambda dbapi, *_: with_cursor(dbapi, "SET LOCAL")),
    "checkout, the driver's SET": ("pool", "checkout", lambda dbapi, *_: call_driver(dbapi)),
    "after_begin, SET": ("session", "after_begin", lambda _, __, one: with_cursor(one.connection, "SET")),
    "after_begin, SET LOCAL": ("session", "after_begin", lambda _, __, one: with_cursor(one.connection, "SET LOCAL")),
    "after_begin, the driver's SET": ("session", "after_begin", lambda _, __, one: call_driver(one.connection)),
}


@pytest.fixture
async def engine(cluster: Cluster) -> AsyncIterator[Any]:
    """An engine of the application's, of one connection, which it has used already."""
    engine = create_async_engine(cluster.primary.url, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    yield engine
    await engine.dispose()


def listen(engine: Any, kind: str) -> Callable[[], None]:
    """Listen; the function returned ends that."""
    of, name, listener = LISTENERS[kind]
    sync: Engine = engine.sync_engine
    target: Any = {"engine": sync, "pool": sync.pool, "session": Tenants}[of]
    event.listen(target, name, listener)
    return lambda: event.remove(target, name, listener)


async def found(maker: Any) -> list[str]:
    """The tenant that each of four sessions finds: the first and the third have one."""
    answers = []
    for now in ("A", None, "B", None):
        tenant[:] = [now] if now else []
        async with maker() as session:
            answers += [await session.scalar(TENANT) or "" for _ in range(2)]
            await session.commit()
    tenant.clear()
    return answers


RIGHT = ["A", "A", "", "", "B", "B", "", ""]


@pytest.mark.parametrize("kind", LISTENERS)
async def test_a_listener_with_a_cursor_sets_the_tenant_of_its_own_session(engine: Any, kind: str) -> None:
    """What it sets holds in the session it sets it for, a read or a write, and in no later one."""
    stop = listen(engine, kind)
    try:
        async with Router(engine, policy=LONG, session_options={"class_": AsyncTenants}) as db:
            await catalog_read(db)
            assert await found(db.read) == RIGHT
            assert await found(db.write) == RIGHT
    finally:
        stop()


@pytest.mark.parametrize("kind", [kind for kind in LISTENERS if "LOCAL" not in kind and "do_execute" not in kind])
async def test_a_listener_that_comes_later_leaves_nothing_either(engine: Any, kind: str) -> None:
    """Added while the Router is open, to connections that are open: the sessions after it find nothing of it."""
    async with Router(engine, policy=LONG, session_options={"class_": AsyncTenants}) as db:
        await catalog_read(db)
        assert [*await found(db.read), *await found(db.write)] == [""] * 16
        stop = listen(engine, kind)
        try:
            for maker in (db.read, db.write):
                assert (await found(maker))[2::4] == ["", ""]
        finally:
            stop()


@pytest.mark.parametrize("kind", [kind for kind in LISTENERS if "engine_connect" not in kind])
async def test_inside_rolled_back_as_well(cluster: Cluster, kind: str) -> None:
    """Sessions that share one transaction find nothing of each other's listeners."""
    engine = create_async_engine(cluster.primary.url, pool_size=1, max_overflow=0)
    stop = listen(engine, kind)
    try:
        async with Router(engine, policy=LONG, session_options={"class_": AsyncTenants}) as db:
            await catalog_read(db)
            async with db.one_transaction():
                for maker in (db.read, db.write):
                    assert (await found(maker))[2::4] == ["", ""]
    finally:
        stop()
        await engine.dispose()


async def test_what_would_lift_the_fence_is_refused(cluster: Cluster, engine: Any) -> None:
    """A `checkout` listener cannot make a read session write."""

    def lift(dbapi: Any, *_: Any) -> None:
        with_cursor(dbapi, "SET default_transaction_read_only = off; SET")

    async with Router(engine, policy=LONG) as db:
        event.listen(db.pools["primary"].reading.sync_engine.pool, "checkout", lift)
        for _ in range(2):
            tenant[:] = ["A"]
            with pytest.raises(ReadOnly, match="checkout"):
                async with db.read() as session:
                    await session.execute(text("INSERT INTO item VALUES ('lifted')"))
            tenant.clear()
    assert await cluster.primary.fetchval("SELECT count(*) FROM item WHERE name = 'lifted'") == 0


async def test_a_listener_that_runs_nothing_costs_nothing(cluster: Cluster, engine: Any) -> None:
    """Instrumentation listens everywhere, and a read is one round trip all the same."""
    for target, name in ((engine.sync_engine, "before_cursor_execute"), (engine.sync_engine.pool, "checkout")):
        event.listen(target, name, lambda *_: None)
    async with Router(engine, policy=LONG) as db:
        await catalog_read(db)

        async def read() -> int:
            before = cluster.primary.proxy.round_trips
            async with db.read() as session:
                await session.execute(text("SELECT count(*) FROM item"))
            return cluster.primary.proxy.round_trips - before

        await read()
        await nothing_is_asked(cluster)
        assert [await read() for _ in range(3)] == [1, 1, 1]
