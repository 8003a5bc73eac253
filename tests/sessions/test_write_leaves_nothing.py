"""What a write session has set, by whatever means: the next session that writes does not find it."""

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
