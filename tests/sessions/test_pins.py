"""What a read has set in its connection pins it: it is carried along, or the move is refused; it is never forgotten."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, String, Table, select, text
from sqlalchemy.exc import SQLAlchemyError

from lagwise import Causality, NoReplica, Router
from lagwise._sessions.connection import ConnectionRouting
from lagwise._sessions.core_routing import CoreRouting
from lagwise._sessions.driver_routing import DriverRouting
from lagwise._sessions.lease import Lease
from lagwise.testing import Cluster
from tests.kit.connections import write
from tests.kit.routers import PATIENT, both_in_rotation, router, stand_still

MINE = "SELECT tenant FROM pinned"
_TABLE = Table("pinned", MetaData(), Column("tenant", String))
Ask = Callable[[], Awaitable[Any]]
Begin = Callable[[AsyncExitStack, Router], Awaitable[Ask]]


@pytest.fixture(scope="module")
async def schemas(running: Cluster) -> AsyncIterator[Cluster]:
    """The table of a tenant in a schema of its own, and a stranger's where a session without a schema looks."""
    await running.restore()
    await running.primary.execute(
        "CREATE TABLE pinned AS SELECT 'a stranger'::text AS tenant; CREATE SCHEMA red; "
        "CREATE TABLE red.pinned AS SELECT 'red'::text AS tenant"
    )
    await running.caught_up()
    yield running
    await running.restore()
    await running.primary.execute("DROP SCHEMA red CASCADE; DROP TABLE pinned")
    await running.caught_up()


@pytest.fixture
async def db(schemas: Cluster) -> AsyncIterator[Router]:
    """The replicas show what there was, and nothing that comes."""
    async with router(schemas, PATIENT) as db:
        await both_in_rotation(db)
        await stand_still(schemas)
        yield db
    await schemas.restore()


def session(*first: str) -> Begin:
    """A session that has run these statements."""

    async def begun(stack: AsyncExitStack, db: Router) -> Ask:
        opened = await stack.enter_async_context(db.read())
        for sql in first:
            await opened.execute(text(sql))
        return lambda: opened.scalar(text(MINE))

    return begun


def core(*first: str) -> Begin:
    """A connection of Core's that has run these statements."""

    async def begun(stack: AsyncExitStack, db: Router) -> Ask:
        opened = await stack.enter_async_context(db.read.connect())
        for sql in first:
            await opened.execute(text(sql))
        return lambda: opened.scalar(text(MINE))

    return begun


def driver(*first: str) -> Begin:
    """The driver's connection that has run these statements."""

    async def begun(stack: AsyncExitStack, db: Router) -> Ask:
        opened = await stack.enter_async_context(db.read.asyncpg())
        for sql in first:
            await opened.execute(sql)
        return lambda: opened.fetchval(MINE)

    return begun


async def session_options(stack: AsyncExitStack, db: Router) -> Ask:
    """Execution options by the session's connection."""
    opened = await stack.enter_async_context(db.read())
    await opened.connection(execution_options={"schema_translate_map": {None: "red"}})
    return lambda: opened.scalar(select(_TABLE.c.tenant))


async def core_options(stack: AsyncExitStack, db: Router) -> Ask:
    """Execution options of Core's, which go where it goes."""
    opened = await stack.enter_async_context(db.read.connect())
    await opened.execution_options(schema_translate_map={None: "red"})
    return lambda: opened.scalar(select(_TABLE.c.tenant))


async def prepared(stack: AsyncExitStack, db: Router) -> Ask:
    """A statement that the driver has prepared, in its schema."""
    opened = await stack.enter_async_context(db.read.asyncpg())
    await opened.execute("SET search_path = red")
    statement = await opened.prepare(MINE)
    assert statement.get_query() == MINE
    return lambda: opened.fetchval(MINE)


SET = "SET search_path = red"
CONFIG = "SELECT set_config('search_path', 'red', false)"
LOCAL = "SELECT set_config('search_path', 'red', true)"
PINS: dict[str, Begin] = {
    f"{kind.__name__}, {how}": kind(*first)
    for kind in (session, core, driver)
    for how, first in {
        "SET": (SET,),
        "set_config": (CONFIG,),
        "of a transaction": (LOCAL,),
        "a lock": (SET, "SELECT pg_advisory_lock_shared(7)"),
        "PREPARE": (SET, "PREPARE mine AS SELECT tenant FROM pinned"),
        "DO": ("DO $$ BEGIN PERFORM set_config('search_path', 'red', false); END $$",),
    }.items()
}
PINS |= {"session, options": session_options, "Core, options": core_options, "asyncpg, prepare()": prepared}


async def overtaken(db: Router, begin: Begin, *, used: bool) -> object:
    """What a read finds once its client's own write has overtaken it."""
    with Causality():
        async with AsyncExitStack() as stack:
            ask = await begin(stack, db)
            if used:
                assert await ask() == "red"
            await write(db, "overtakes what is pinned")
            return await ask()


@pytest.mark.parametrize("pin", PINS)
async def test_what_was_set_is_carried_along_or_the_way_out_is_named(db: Router, pin: str) -> None:
    """Set, overtaken by the client's own write, read: the tenant's row, or NoReplica with what to do."""
    for used in (False, True):
        try:
            assert await overtaken(db, PINS[pin], used=used) == "red"
        except NoReplica as error:
            assert "db.read(primary=True)" in str(error)  # noqa: PT017 - either will do


async def test_a_router_that_does_not_look_reads_another_tenants(db: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing pins, the move is silent, and the next read is a stranger's: what the test above would miss."""
    never = property(lambda _self: False)
    monkeypatch.setattr(Lease, "pinned", never)
    for kind in (ConnectionRouting, CoreRouting, DriverRouting):
        monkeypatch.setattr(kind, "pinned", never)
    assert [await overtaken(db, PINS[f"{kind}, SET"], used=True) for kind in ("session", "core", "driver")] == (
        ["a stranger"] * 3
    )


@pytest.mark.parametrize("pin", PINS)
async def test_what_was_set_is_not_lost_with_its_connection(schemas: Cluster, pin: str) -> None:
    """The server ends the connection, and other nodes are well: the tenant's row or an error, never a stranger's."""
    async with router(schemas, PATIENT) as db:
        await both_in_rotation(db)
        async with AsyncExitStack() as stack:
            ask = await PINS[pin](stack, db)
            for node in schemas.nodes.values():
                await schemas.terminate_backends(node)
            found: object = "red"
            try:
                found = await ask()
            except (SQLAlchemyError, OSError) as error:
                found = error
            except Exception as error:  # what asyncpg raises has no base of its own
                found = error
            assert found == "red" or isinstance(found, Exception)


async def test_what_was_set_does_not_reach_the_next(schemas: Cluster) -> None:
    """By a statement or behind the router's back, by the driver's own connection: the next one finds its own."""
    async with Router(schemas.primary.url, policy=PATIENT, pool_size=1) as db:
        async with db.read.connect() as connection:
            raw = await connection.get_raw_connection()
            await driver_execute(raw)
        async with db.read() as session:
            assert await session.scalar(text(MINE)) == "a stranger"
        async with db.read() as session:
            raw = await (await session.connection()).get_raw_connection()
            await driver_execute(raw)
        async with db.read() as session:
            assert await session.scalar(text(MINE)) == "a stranger"
        async with db.read.connect() as connection:
            await connection.run_sync(lambda sync: sync.connection.cursor().execute(SET))
        async with db.read() as session:
            assert await session.scalar(text(MINE)) == "a stranger"


async def driver_execute(raw: Any) -> None:
    """Set the schema without a word to SQLAlchemy."""
    await raw.driver_connection.execute(SET)
