"""`rolled_back(db)`: every door shares one transaction that is undone, and a read is as read-only as ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality, ReadOnly, Reason, Router, RoutingError, StatementTimeout
from lagwise._pools import joined
from lagwise.fastapi import CausalityMiddleware, ReadAsyncpg, ReadSession, WriteAsyncpg, WriteSession, lifespan
from lagwise.testing import Cluster, rolled_back, wait_until
from tests.kit.application import Item
from tests.kit.http import SECRET, carries_nothing, committed, insert, names
from tests.kit.routers import busy, router, steady
from tests.kit.sessions import count, write


@pytest.fixture(autouse=True)
async def nothing_left(cluster: Cluster, db: Router) -> AsyncIterator[None]:
    """After each test the tables are as before, and no connection is in use."""
    rows = await cluster.primary.fetchval("SELECT count(*) FROM item")
    yield
    assert await cluster.primary.fetchval("SELECT count(*) FROM item") == rows
    assert busy(db) == 0


async def test_all_doors_share_what_is_written_and_it_is_gone_afterwards(cluster: Cluster, db: Router) -> None:
    """Session, block, Core and asyncpg; no other connection sees it; nothing is left at the end."""
    async with rolled_back(db):
        await write(db, "shared")
        async with db.write() as session:
            session.add(Item(name="shared"))
            await session.commit()
            session.add(Item(name="shared"))
        async with db.write.asyncpg() as connection:
            await connection.execute("INSERT INTO item (name) VALUES ($1)", "shared")
        async with db.read() as session:
            assert await count(session, "shared") == 3
            assert session.info["lagwise.route"].reason is Reason.NO_REPLICAS
        async with db.read.connect() as core:
            assert await core.scalar(text("SELECT count(*) FROM item WHERE name = 'shared'")) == 3
        async with db.read.asyncpg() as driver:
            assert await driver.fetchval("SELECT count(*) FROM item WHERE name = $1", "shared") == 3
        assert await committed(cluster, "shared") == 0
    async with db.read(primary=True) as session:
        assert await count(session, "shared") == 0
    async with db.write() as session:  # on the connection that the block has given back, after a read
        session.add(Item(name="never committed"))
        await session.flush()
        assert session.in_transaction()
        await session.rollback()
    assert await committed(cluster, "never committed") == 0
    await write(db, "committed as usual")
    assert await committed(cluster, "committed as usual") == 1
    await cluster.primary.execute("DELETE FROM item WHERE name = 'committed as usual'")


@pytest.mark.parametrize("options", [{}, {"snapshot": True}, {"primary": True}], ids=str)
async def test_a_read_is_still_read_only(db: Router, options: dict[str, Any]) -> None:
    """By every door, and whatever would lift it; and the next write may write."""
    attempt = "INSERT INTO item (name) VALUES ('forbidden')"
    async with rolled_back(db):
        async with db.read(**options) as session:
            with pytest.raises(ReadOnly):
                await session.execute(text(attempt))
            await session.rollback()
            with pytest.raises(ReadOnly):
                await session.execute(text("SET LOCAL transaction_read_only = off"))
            with pytest.raises(ReadOnly):
                await session.execute(text("COMMIT"))
        with pytest.raises(ReadOnly):
            async with db.read.begin(**options) as session:
                session.add(Item(name="forbidden"))
        async with db.read.connect(**options) as core:
            with pytest.raises(ReadOnly):
                await core.execute(text(attempt))
        async with db.read.asyncpg(**options) as driver:
            with pytest.raises(ReadOnly):
                await driver.execute(attempt)
        await write(db, "allowed")
        async with db.read(**options) as session:
            assert await count(session, "allowed") == 1


async def test_a_read_goes_on_after_a_statement_that_failed(db: Router) -> None:
    """As outside: a plain read is in no transaction that could have failed."""
    async with rolled_back(db):
        await write(db, "before the failure")
        async with db.read() as session:
            with pytest.raises(ReadOnly):
                await session.execute(text("DELETE FROM item"))
            assert await count(session, "before the failure") == 1
        async with db.read.asyncpg() as driver:
            with pytest.raises(ReadOnly):
                await driver.execute("DELETE FROM item")
            assert await driver.fetchval("SELECT count(*) FROM item WHERE name = 'before the failure'") == 1


async def test_a_limit_for_statements_holds_inside(db: Router) -> None:
    """A read that is stopped loses nothing that others have written; a write that is stopped rolls back."""
    async with rolled_back(db):
        await write(db, "limited")
        async with db.read(timeout=0.2) as session:
            with pytest.raises(StatementTimeout):
                await session.execute(text("SELECT pg_sleep(60)"))
            assert await count(session, "limited") == 1
        with pytest.raises(StatementTimeout):
            async with db.write.begin(timeout=0.2) as session:
                session.add(Item(name="limited"))
                await session.flush()
                await session.execute(text("SELECT pg_sleep(60)"))
        async with db.read.asyncpg(timeout=0.2) as driver:
            with pytest.raises(StatementTimeout):
                await driver.fetchval("SELECT pg_sleep(60)")
            assert await driver.fetchval("SELECT count(*) FROM item WHERE name = 'limited'") == 1


async def test_a_connection_that_is_lost_is_not_replaced(cluster: Cluster, db: Router) -> None:
    """With it went what was written: each session says so, and the end of the block."""
    with pytest.raises(RoutingError, match="connection was lost"):
        async with rolled_back(db):
            await write(db, "lost")
            await cluster.terminate_backends("primary")
            await wait_until(db.write.joined._driver.is_closed, what="the driver has noticed")  # type: ignore[union-attr]
            with pytest.raises(RoutingError, match="was lost"):
                await write(db, "lost")


async def test_blocks_end_in_the_reverse_order(db: Router) -> None:
    """An outer savepoint that is rolled back first would take the inner one with it."""
    async with rolled_back(db):
        first, second = rolled_back(db), rolled_back(db)
        await first.__aenter__()
        await second.__aenter__()
        with pytest.raises(RoutingError, match="reverse order"):
            await first.__aexit__(None, None, None)
        await second.__aexit__(None, None, None)


async def test_commit_and_rollback_are_those_of_the_session(db: Router) -> None:
    """What one session has committed stays when another one fails, or is not committed."""
    async with rolled_back(db):
        await write(db, "kept")
        async with db.write() as session:
            session.add(Item(name="never committed"))
            await session.flush()
        async with db.write() as session:
            session.add(item := Item(name="kept"))
            await session.commit()
            key = item.id
            session.add(Item(name="rolled back"))
            await session.rollback()
            with pytest.raises(IntegrityError):
                await session.execute(text("INSERT INTO item (id, name) VALUES (:id, 'twice')"), {"id": key})
            await session.rollback()
            async with session.begin_nested():
                session.add(Item(name="kept"))
            await session.commit()
        with pytest.raises(ZeroDivisionError):
            async with db.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ('never committed')")
                raise ZeroDivisionError
        async with db.read() as session:
            found = (await session.scalars(select(Item.name).where(Item.name != "x").order_by(Item.id.desc()))).all()
            assert found[:3] == ["kept"] * 3
            assert not {"never committed", "rolled back", "twice"} & set(found)


async def test_settings_end_with_their_session(db: Router) -> None:
    """A savepoint that is released keeps SET LOCAL: the next session must not have it all the same."""
    set_local, shown = text("SET LOCAL app.tenant = 'one'"), text("SELECT current_setting('app.tenant', true)")
    async with rolled_back(db):
        async with db.write.begin() as session:
            await session.execute(set_local)
            assert await session.scalar(shown) == "one"
        async with db.read() as session:
            assert await session.scalar(shown) in {None, ""}
            async with session.begin():
                await session.execute(set_local)
                assert await session.scalar(shown) == "one"
            assert await session.scalar(shown) in {None, ""}
        async with db.read() as session:
            await session.execute(text("SET search_path TO pg_catalog"))
        async with db.write() as session:
            assert await session.scalar(text("SHOW search_path")) == '"$user", public'
            assert await session.scalar(shown) in {None, ""}


async def test_no_token_leaves_it(db: Router) -> None:
    """A position of what is rolled back would bind a client to nothing."""
    with Causality() as seen:
        async with rolled_back(db):
            await write(db, "without a token")
            async with db.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ('without a token')")
        assert (seen.grew, seen.writing, str(seen.token)) == (False, False, "")
        assert [route.node for route in seen.routes] == ["primary", "primary"]


async def test_sessions_at_the_same_time_take_turns(db: Router) -> None:
    """Twenty tasks that write and read: each in its turn, and none in another one's savepoint."""

    async def work(number: int) -> int:
        async with db.write() as session:
            session.add(Item(name=f"turn {number}"))
            await session.flush()
            await asyncio.sleep(0)
            await (session.commit() if number % 2 else session.rollback())
        async with db.read() as session:
            return await count(session, f"turn {number}")

    async with rolled_back(db):
        assert await asyncio.gather(*map(work, range(20))) == [0, 1] * 10


async def test_a_session_that_waits_for_itself_gets_an_error_at_once(db: Router) -> None:
    """A write that is not committed holds the connection; one that is, or a plain read, does not."""
    async with rolled_back(db), db.read() as read, db.write() as write:
        assert await count(read, "itself") == 0
        write.add(Item(name="itself"))
        await write.flush()
        with pytest.raises(RoutingError, match="would wait for itself"):
            await count(read, "itself")
        await write.commit()
        assert await count(read, "itself") == 1


async def test_a_task_that_was_started_meanwhile_counts_as_the_same(db: Router) -> None:
    """A block that begins and commits in a task of its own, and tasks that are gathered: each would be waited for."""

    async def read() -> int:
        async with db.read() as session:
            return await count(session, "the same")

    async with rolled_back(db), db.write() as session:
        session.add(Item(name="the same"))
        await session.flush()
        with pytest.raises(RoutingError, match="would wait for itself"):
            await asyncio.gather(read(), read())
        with pytest.raises(RoutingError, match="would wait for itself"):
            await write(db, "the same")
        await session.commit()
        assert [await read() for _ in range(2)] == [1, 1]


async def test_a_session_that_waits_for_long_gets_an_error(db: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has a bound, whoever is waited for."""
    monkeypatch.setattr(joined, "_WAITS", 0.05)
    written, go_on = asyncio.Event(), asyncio.Event()

    async def write_slowly() -> None:
        async with db.write.begin() as session:
            session.add(Item(name="for long"))
            await session.flush()
            written.set()
            await go_on.wait()

    async with rolled_back(db):
        writing = asyncio.create_task(write_slowly())
        await written.wait()
        async with db.read() as session:
            with pytest.raises(RoutingError, match="may be waiting for each other"):
                await count(session, "for long")
            go_on.set()
            await writing
            assert await count(session, "for long") == 1


async def test_an_exception_rolls_back_too(db: Router) -> None:
    """And comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        async with rolled_back(db):
            await write(db, "before the exception")
            raise ZeroDivisionError


async def test_inside_another_it_is_a_savepoint(db: Router) -> None:
    """What the outer block has written stays for its next inner block."""
    async with rolled_back(db):
        await write(db, "outer")
        for _ in range(2):
            async with rolled_back(db):
                await write(db, "inner")
                async with db.read() as session:
                    assert (await count(session, "outer"), await count(session, "inner")) == (1, 1)
        async with db.read() as session:
            assert (await count(session, "outer"), await count(session, "inner")) == (1, 0)


async def test_a_session_that_is_open_at_the_end_is_an_error(db: Router) -> None:
    """It is cut off and rolled back; used later it says why it cannot be."""
    with pytest.raises(RoutingError, match="a session is still open"):
        async with rolled_back(db):
            session = db.write()
            session.add(Item(name="open at the end"))
            await session.flush()
    await session.close()
    session.add(Item(name="open at the end"))
    with pytest.raises(RoutingError, match="has ended"):
        await session.flush()
    await session.close()


async def test_its_transaction_cannot_be_ended_from_inside(db: Router, cluster: Cluster) -> None:
    """COMMIT as text is refused, a procedure that commits fails, and two-phase commit is not to be had."""
    async with rolled_back(db):
        async with db.write() as session:
            with pytest.raises(RoutingError, match="as SQL text"):
                await session.execute(text("COMMIT"))
        async with db.write.asyncpg() as connection:
            with pytest.raises(RoutingError, match="as SQL text"):
                await connection.execute("ROLLBACK")
        async with db.write(twophase=True) as session:
            session.add(Item(name="two phases"))
            with pytest.raises(RoutingError, match="two-phase"):
                await session.flush()


async def test_a_transaction_ended_past_sqlalchemy_is_an_error(cluster: Cluster, db: Router) -> None:
    """COMMIT and BEGIN by the driver's own means: the row is there to stay, and the block says so."""
    for goes_on in (False, True):
        with pytest.raises(RoutingError, match="by the driver's own means"):
            async with rolled_back(db):
                session = db.write()
                driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
                await driver.execute("INSERT INTO item (name) VALUES ('to stay'); COMMIT; BEGIN")
                with suppress(DBAPIError):
                    await session.close()
                if goes_on:
                    with suppress(DBAPIError):
                        await write(db, "later")
    assert await committed(cluster, "to stay") == 2
    assert await committed(cluster, "later") == 0
    await cluster.primary.execute("DELETE FROM item WHERE name = 'to stay'")


@pytest.fixture
async def referring(cluster: Cluster) -> AsyncIterator[None]:
    """Tables that refer to others: checked at COMMIT, checked at once unless deferred, and a trigger at COMMIT."""
    await cluster.primary.execute("""
        CREATE TABLE late (id int, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE early (id int, item int REFERENCES item DEFERRABLE);
        CREATE TABLE heard (id int);
        CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO heard VALUES (NEW.id); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER hear AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION hear();
    """)
    yield
    await cluster.primary.execute("DROP TABLE late, early, heard; DROP FUNCTION hear()")


async def test_a_commit_checks_what_is_deferred(referring: None, db: Router) -> None:
    """A session, a block and asyncpg are refused at their commit as outside, and the next one is deferred again."""
    dangling = "INSERT INTO late VALUES (1, -1)"
    async with rolled_back(db):
        for _ in range(2):
            async with db.write() as session:
                await session.execute(text(dangling))
                with pytest.raises(IntegrityError):
                    await session.commit()
                await session.rollback()
            with pytest.raises(IntegrityError):
                async with db.write.begin() as session:
                    await session.execute(text(dangling))
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                async with db.write.asyncpg() as connection:
                    await connection.execute(dangling)
            async with db.write.begin() as session:
                await session.execute(text(dangling))
                assert await session.scalar(text("SELECT count(*) FROM heard")) == 0
                await session.execute(text("DELETE FROM late WHERE item = -1"))
                await session.execute(text("INSERT INTO late VALUES (2, NULL)"))
            async with db.write() as session:
                assert await session.scalar(text("SELECT count(*) FROM heard")) == 2
                await session.execute(text("DELETE FROM heard"))
                await session.commit()
                with pytest.raises(IntegrityError):  # not deferred until asked for
                    await session.execute(text("INSERT INTO early VALUES (1, -1)"))
                await session.rollback()
                await session.execute(text("SET CONSTRAINTS ALL DEFERRED"))
                await session.execute(text("INSERT INTO early VALUES (1, -1)"))
                await session.execute(text("DELETE FROM early"))
                await session.commit()


async def test_asyncpgs_own_transactions_are_savepoints(db: Router) -> None:
    """Nested and rolled back; a read's ends, and then its connection is for others again."""
    async with rolled_back(db):
        async with db.write.asyncpg() as connection, connection.transaction():
            await connection.execute("INSERT INTO item (name) VALUES ('own')")
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO item (name) VALUES ('own')")
                    raise ZeroDivisionError
        async with db.read.asyncpg() as driver:
            async with driver.transaction():
                assert await driver.fetchval("SELECT count(*) FROM item WHERE name = 'own'") == 1
            await write(db, "after the transaction")
            assert await driver.fetchval("SELECT count(*) FROM item WHERE name = 'after the transaction'") == 1
        async with db.read.asyncpg(snapshot=True) as driver:
            assert [row["name"] async for row in driver.cursor("SELECT name FROM item WHERE name = 'own'")] == ["own"]
        async with db.read(snapshot=True) as session:
            rows = await session.stream(select(Item.name).where(Item.name == "own"))
            assert [name async for (name,) in rows] == ["own"]


async def test_isolation_levels_are_left_out(db: Router) -> None:
    """The one transaction has one; what asks for AUTOCOMMIT is undone as well."""
    async with rolled_back(db):
        for level in ("SERIALIZABLE", "AUTOCOMMIT"):
            async with db.write() as session:
                await session.connection(execution_options={"isolation_level": level})
                session.add(Item(name="level"))
                await session.commit()
        async with db.read() as session:
            assert await count(session, "level") == 2


async def test_through_fastapi(cluster: Cluster) -> None:
    """Requests run in tasks of their own, and share what the test has written; no answer carries a token."""
    db = steady(cluster)
    api = FastAPI(lifespan=lifespan(db))

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with db.write() as session:
            yield session
            await session.commit()

    @api.post("/items/{name}")
    async def create(name: str, session: WriteSession, before: ReadSession) -> int:
        found = await names(before, name)
        await insert(session, name)
        return found

    @api.post("/guide/{name}")
    async def guide(name: str, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
        await insert(session, name)

    @api.post("/driver/{name}")
    async def driver(name: str, connection: WriteAsyncpg) -> None:
        await connection.execute("INSERT INTO item (name) VALUES ($1)", name)

    @api.get("/items/{name}")
    async def counted(name: str, session: ReadSession, connection: ReadAsyncpg) -> list[int]:
        return [
            await names(session, name),
            await connection.fetchval("SELECT count(*) FROM item WHERE name = $1", name),
        ]

    @api.get("/wrong")
    async def wrong(session: ReadSession) -> None:
        await insert(session, "wrong")

    app = CausalityMiddleware(api, secret=SECRET)
    transport = httpx.ASGITransport(app)
    async with (
        lifespan(db)(api),
        rolled_back(db),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        await write(db, "http")
        answers = [await client.post(f"/{path}/http") for path in ("items", "guide", "driver")]
        assert [(answer.status_code, carries_nothing(answer)) for answer in answers] == [(200, True)] * 3
        assert (answers[0].json(), (await client.get("/items/http")).json()) == (1, [4, 4])
        with pytest.raises(ReadOnly):
            await client.get("/wrong")
        assert (await client.get("/items/http")).json() == [4, 4]
        assert await committed(cluster, "http") == 0


async def test_of_an_engine_with_a_level_of_its_own(cluster: Cluster) -> None:
    """The transaction has the level that the application's writes have."""
    async with router(cluster, isolation_level="REPEATABLE READ") as db, rolled_back(db):
        await write(db, "repeatable")
        async with db.write() as session:
            assert await session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        async with db.read() as session:
            assert await count(session, "repeatable") == 1


async def test_it_needs_postgresql() -> None:
    """SQLite has no such transaction."""
    async with Router("sqlite+aiosqlite://") as db:
        with pytest.raises(ValueError, match="PostgreSQL"):
            async with rolled_back(db):
                pass
