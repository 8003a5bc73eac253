"""What a write session has set, by whatever means: the next session that writes does not find it."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from lagwise import Router
from lagwise.testing import Cluster
from tests.kit.routers import LONG
from tests.kit.traces import CLEAN, STATE

SET = "SET search_path = tenant_1; SET lagwise.tenant = 'tenant_1'"


async def by_a_statement(session: AsyncSession) -> None:
    await session.execute(text("SET search_path = tenant_1"))
    await session.execute(text("SELECT set_config('lagwise.tenant', 'tenant_1', false)"))
    await session.commit()


async def by_the_driver(session: AsyncSession) -> None:
    raw = await (await session.connection()).get_raw_connection()
    await raw.driver_connection.execute(SET)  # type: ignore[union-attr]


async def by_a_cursor(session: AsyncSession) -> None:
    def act(sync: Any) -> None:
        cursor = sync.connection().connection.cursor()
        for each in SET.split("; "):
            cursor.execute(each)
        cursor.close()

    await session.run_sync(act)
    await session.commit()


WAYS = [by_a_statement, by_the_driver, by_a_cursor]


@pytest.mark.parametrize("way", WAYS)
async def test_the_next_one_finds_nothing(cluster: Cluster, way: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """Two sessions over one connection: the second has the settings that the connection had when it was new."""
    async with Router(cluster.primary.url, policy=LONG, pool_size=1) as db:
        async with db.write() as session:
            await way(session)
        async with db.write() as session:
            assert tuple((await session.execute(STATE)).one()) == CLEAN[:-1]
        async with db.write.asyncpg() as connection:
            assert tuple(await connection.fetchrow(str(STATE))) == CLEAN[:-1]


@pytest.mark.parametrize("way", WAYS)
async def test_a_plain_session_leaves_it(cluster: Cluster, way: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """What the test above would miss: a ROLLBACK undoes nothing that was committed or set outside a transaction."""
    engine = create_async_engine(cluster.primary.url, pool_size=1)
    async with AsyncSession(engine) as session:
        await way(session)
    async with AsyncSession(engine) as session:
        assert tuple((await session.execute(STATE)).one())[:2] == ("tenant_1", "tenant_1")
    await engine.dispose()


AUDITED = """
CREATE TABLE audited (id int);
CREATE FUNCTION note_tenant() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('lagwise.tenant', 'tenant_1', false); RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION note_tenant()
"""
THROUGH_THE_DRIVER: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "cursor": lambda connection: connection.cursor("SELECT set_config('lagwise.tenant', 'tenant_1', false)"),
    "copy_records_to_table": lambda connection: connection.copy_records_to_table("audited", records=[(1,)]),
    "copy_to_table": lambda connection: connection.copy_to_table("audited", source=io.BytesIO(b"1\n")),
    "executemany": lambda connection: connection.executemany("INSERT INTO audited VALUES ($1)", [(1,)]),
}


@pytest.mark.parametrize("method", THROUGH_THE_DRIVER)
async def test_nor_what_the_drivers_methods_leave(cluster: Cluster, method: str) -> None:
    """A cursor's text, and code that a COPY runs and no text names: a trigger's."""
    await cluster.primary.execute(AUDITED)
    await cluster.caught_up()
    try:
        async with Router(cluster.primary.url, policy=LONG, pool_size=1) as db:
            async with db.write.asyncpg() as connection:
                used = THROUGH_THE_DRIVER[method](connection)
                if method == "cursor":
                    await (await used).fetch(1)
                else:
                    await used
                assert await connection.fetchval("SELECT current_setting('lagwise.tenant', true)") == "tenant_1"
            async with db.write.asyncpg() as connection:
                assert tuple(await connection.fetchrow(str(STATE))) == CLEAN[:-1]
    finally:
        await cluster.primary.execute("DROP TABLE audited; DROP FUNCTION note_tenant()")


async def test_a_seed_is_nobody_elses(cluster: Cluster) -> None:
    """After setseed() the next session's random numbers cannot be foreseen, whoever reads or writes."""
    async with Router(cluster.primary.url, policy=LONG, pool_size=1) as db:
        for maker in (db.read, db.write):
            drawn = set()
            for _ in range(2):
                async with maker() as session:
                    await session.execute(text("SELECT setseed(0.42)"))
                async with maker() as session:
                    drawn.add(await session.scalar(text("SELECT random()")))
            assert len(drawn) == 2
