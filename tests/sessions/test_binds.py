"""What an application says itself is obeyed, or refused with the reason: binds, levels, changed tables."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from lagwise import Router, RoutingError
from lagwise.events import Event, Retried
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.connections import KINDS, reading
from tests.kit.routers import LONG, in_rotation, router

UNROUTED = "lagwise.unrouted"
NAME = text("SHOW application_name")


@pytest.fixture
async def own(cluster: Cluster) -> Any:
    """An engine of the application's, known by its name."""
    options = {"server_settings": {"application_name": "own"}}
    engine = create_async_engine(cluster.primary.url, connect_args=options)
    yield engine
    await engine.dispose()


async def test_a_bind_is_obeyed_and_said(db: Router, own: Any) -> None:
    """`bind=` and `binds=` of one session: its statements go there, and `session.info` says that it is not routed."""
    for options in ({"bind": own}, {"binds": {Item: own}}):
        for maker in (db.read, db.write):
            async with maker(**options) as session:
                assert UNROUTED in session.info
                assert "lagwise.route" not in session.info
            async with maker(bind=own) as session:
                assert await session.scalar(NAME) == "own"


async def test_a_configured_bind_is_obeyed_and_said(cluster: Cluster, own: Any) -> None:
    """`configure(bind=...)`: every later session is the application's."""
    async with router(cluster) as db:
        db.read.configure(bind=own)
        async with db.read() as session:
            assert await session.scalar(NAME) == "own"
            assert UNROUTED in session.info
        db.read.configure(bind=None)
        async with db.read() as session:
            assert await session.scalar(NAME) != "own"
            assert UNROUTED not in session.info


async def test_a_bind_of_a_mapper_is_obeyed(db: Router, own: Any) -> None:
    """`bind_mapper()`: what concerns it goes there, and the rest is routed."""
    async with db.read() as session:
        session.sync_session.bind_mapper(Item, own.sync_engine)
        assert session.sync_session.get_bind(Item) is own.sync_engine
        assert await session.scalar(NAME) != "own"
        assert session.info["lagwise.route"].on_replica


def test_a_get_bind_of_the_applications_is_refused() -> None:
    """The Router would not ask it: the reason is in the error, for either class."""

    class Sync(Session):
        def get_bind(self, *args: Any, **kw: Any) -> Any:
            return super().get_bind(*args, **kw)

    class Async(AsyncSession):
        def get_bind(self, *args: Any, **kw: Any) -> Any:
            return super().get_bind(*args, **kw)

    for options in ({"sync_session_class": Sync}, {"class_": Async}, {"bind": object()}):
        with pytest.raises(ValueError, match=r"get_bind\(\)|bind"):
            Router("postgresql+asyncpg://nowhere/x", session_options=options)


@pytest.mark.parametrize("primary", [False, True], ids=["replica", "primary"])
async def test_an_isolation_level_works_or_is_refused(db: Router, primary: bool) -> None:
    """REPEATABLE READ is one; SERIALIZABLE, which a replica has not, is refused with the way out."""
    async with db.read(primary=primary) as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        assert await session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        assert await session.scalar(text("SHOW transaction_read_only")) == "on"
    async with db.read(primary=primary) as session:
        with pytest.raises(RoutingError, match=r"snapshot=True"):
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    async with db.read(primary=primary) as session:
        assert await session.scalar(text("SHOW transaction_isolation")) == "read committed"


@pytest.mark.parametrize("primary", [False, True], ids=["replica", "primary"])
async def test_it_is_never_too_late_for_a_transaction(db: Router, primary: bool) -> None:
    """After a statement that ran without: a savepoint, a cursor, a block; at AUTOCOMMIT a cursor names the way out."""
    one = text("SELECT 1")
    async with db.read(primary=primary) as session:
        await session.execute(one)
        async with session.begin_nested():
            assert await session.scalar(one) == 1
    async with db.read(primary=primary) as session:
        await session.execute(one)
        assert [row async for row in await session.stream(one)] == [(1,)]
    async with db.read(primary=primary) as session:
        await session.execute(one)
        async with session.begin():
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"
    async with db.read(primary=primary) as session:
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(RoutingError, match=r"snapshot=True"):
            await connection.stream(one)


@pytest.mark.parametrize("kind", [*KINDS, "session"])
async def test_a_table_that_changed_is_read_again(cluster: Cluster, kind: str) -> None:
    """A prepared plan that DDL has made stale fails nobody: the read runs again, on replicas and on the primary."""
    await cluster.primary.execute("CREATE TABLE changing (id int); INSERT INTO changing VALUES (1)")
    try:
        await cluster.caught_up()
        for replicas in ([cluster.replicas[0].url], []):
            async with Router(cluster.primary.url, replicas, policy=LONG, pool_size=1) as db:
                await in_rotation(db, *["replica-1"][: len(replicas)])
                for number in range(3):
                    assert await first(db, kind, "SELECT * FROM changing") == 1
                    await cluster.primary.execute(f"ALTER TABLE changing ADD COLUMN c{len(replicas)}{number} int")
                    await cluster.caught_up()
                    assert await first(db, kind, "SELECT * FROM changing") == 1
    finally:
        await cluster.primary.execute("DROP TABLE changing")


@pytest.mark.parametrize("kind", [*KINDS, "session"])
async def test_a_table_that_a_replica_lacks_is_read_from_the_primary(
    still: Router, cluster: Cluster, kind: str
) -> None:
    """Made a moment ago and not replayed: one read of it goes to the primary, the next one to a replica again."""
    await cluster.primary.execute("CREATE TABLE fresh_table (id int); INSERT INTO fresh_table VALUES (7)")
    try:
        assert await first(still, kind, "SELECT id FROM fresh_table") == 7
        assert await first(still, kind, "SELECT pg_is_in_recovery()") is True
        with pytest.raises(Exception, match="no_such_table"):
            await first(still, kind, "SELECT id FROM no_such_table")
    finally:
        await cluster.primary.execute("DROP TABLE fresh_table")


@pytest.mark.parametrize(
    ("fresh", "sql", "state", "drop"),
    [
        (
            "ALTER TABLE item ADD COLUMN fresh int",
            "SELECT count(fresh) FROM item",
            "42703",
            "ALTER TABLE item DROP COLUMN fresh",
        ),
        ("CREATE FUNCTION fresh() RETURNS int LANGUAGE sql RETURN 7", "SELECT fresh()", "42883", "DROP FUNCTION fresh"),
        ("CREATE TYPE fresh AS ENUM ('a')", "SELECT 'a'::fresh IS NULL", "42704", "DROP TYPE fresh"),
        (
            "CREATE SCHEMA fresh CREATE TABLE word (id int)",
            "SELECT count(*) FROM fresh.word",
            "42P01",
            "DROP SCHEMA fresh CASCADE",
        ),
    ],
    ids=["column", "function", "type", "schema"],
)
async def test_what_a_replica_lacks_is_named_in_the_route_and_in_the_event(
    still: Router, cluster: Cluster, fresh: str, sql: str, state: str, drop: str
) -> None:
    """The reason `strong`, and the failure `not-there-yet`, for each state that the page of concepts names."""
    assert state in (Path(__file__).parents[2] / "docs" / "concepts.md").read_text()
    seen: list[Event] = []
    end = still.watch(seen.append)
    await cluster.primary.execute(fresh)
    try:
        async with still.read() as session:
            await session.execute(text(sql))
            route = session.info["lagwise.route"]
        assert (route.node, route.reason) == ("primary", "strong")
        assert [each.failure for each in seen if isinstance(each, Retried)] == ["not-there-yet"]
    finally:
        end()
        await cluster.primary.execute(drop)


async def first(db: Router, kind: str, sql: str) -> Any:
    """The first value that a read of this kind finds."""
    if kind != "session":
        async with reading(db, kind) as ask:
            return await ask(sql)
    async with db.read() as session:
        return await session.scalar(text(sql))
