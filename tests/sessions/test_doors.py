"""Every door out of a read session: whatever lifts its fence, or tries to, nothing is written."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text

from lagwise import ReadOnly, Router
from lagwise._decide import parse
from lagwise.testing import Cluster
from tests.kit import parser
from tests.kit.bouncer import bouncer
from tests.kit.climbing import EVERY, KINDS, REFUSED, WAYS, climb, mended, reading, untouched
from tests.kit.doors import BOTH, DOORS, SETUP, UNTOUCHED, WRITES
from tests.kit.routers import LONG, in_rotation

PLACES = ["replica", "primary", "no replicas", "primary behind a pooler"]


@pytest.fixture(scope="module")
async def walls() -> AsyncIterator[Cluster]:
    """A cluster with something to write to, and functions that climb."""
    async with Cluster(replicas=1) as cluster:
        await cluster.primary.execute(SETUP)
        await cluster.caught_up()
        yield cluster


@asynccontextmanager
async def placed(cluster: Cluster, place: str, **options: Any) -> AsyncIterator[Router]:
    """A Router whose reads are on a replica, on the primary beside one, or on the primary alone."""
    if place == "primary behind a pooler":
        async with bouncer(cluster) as pooler, pooler.router(LONG, pool_size=2, **options) as db:
            await in_rotation(db, "replica-1")
            db.drain("replica-1")
            yield db
        return
    replicas = [] if place == "no replicas" else [cluster.replicas[0].url]
    async with Router(cluster.primary.url, replicas, policy=LONG, pool_size=2, **options) as db:
        await in_rotation(db, *(["replica-1"] if replicas else []))
        if place == "primary":
            db.drain("replica-1")
        yield db


async def written_through_doors(walls: Cluster, place: str, kind: str) -> list[tuple[str, str, str]]:
    """What was written by way of each door, in the next statement, after a commit, in a block or after it."""
    wrote = []
    async with placed(walls, place) as db:
        looks = await asyncpg.connect(walls.primary.direct_url.replace("+asyncpg", ""))
        for number, door in enumerate(DOORS):
            for name in WRITES if EVERY else [list(WRITES)[number % len(WRITES)]]:
                for how in WAYS if EVERY or place.startswith("primary") else WAYS[number % 4 :][:1]:
                    await climb(db, kind, door, WRITES[name], how)
                    if await looks.fetchval(UNTOUCHED) != "untouched":
                        wrote.append((door, name, how))
                        await mended(walls)
        await looks.close()
    return wrote


async def written_at_once(walls: Cluster, place: str, kind: str, more: str = "") -> list[tuple[str, str]]:
    """What was written by what lifts the fence and writes at once, with `more` behind its text."""
    wrote = []
    async with placed(walls, place) as db:
        for name, sql in BOTH.items():
            for before in ("SELECT 1", "BEGIN", "SELECT lift()"):
                async with reading(db, kind) as (run, commit, _):
                    for each in (before, sql + more, sql + more):
                        with suppress(*REFUSED):
                            await run(each)
                    with suppress(*REFUSED):
                        await commit()
                if not await untouched(walls):
                    wrote.append((name, before))
                    await mended(walls)
    return wrote


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_no_door_lets_a_read_write(walls: Cluster, place: str, kind: str) -> None:
    """Each door, then a write in the next statement, after a commit, in a block or after it: nothing is there."""
    assert await written_through_doors(walls, place, kind) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_nothing_lifts_and_writes_at_once(walls: Cluster, place: str, kind: str) -> None:
    """Code inside the database, or several statements in one text, that lift the fence and write."""
    assert await written_at_once(walls, place, kind) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["primary", "primary behind a pooler"])
async def test_no_text_that_is_not_parsed_lets_a_read_write(
    walls: Cluster, place: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the parser has no wheel, or the text is too long for it, no door is open either."""
    assert await written_at_once(walls, place, kind, f" -- {'x' * parse.LIMIT}") == []
    parser.take_away(monkeypatch)
    assert await written_at_once(walls, place, kind) == []
    assert await written_through_doors(walls, place, kind) == []


@pytest.mark.parametrize("place", ["primary", "primary behind a pooler"])
async def test_a_text_runs_as_one_statement_where_another_may_be_hidden_in_it(walls: Cluster, place: str) -> None:
    """Unseen code may have changed how the server reads a backslash, and a literal may be three statements then."""
    write = WRITES["INSERT"].replace("'", "$$")
    hiding = rf"SELECT '\' || '; COMMIT; BEGIN READ WRITE; {write}; COMMIT; --'"
    async with placed(walls, place) as db:
        async with db.read.asyncpg() as driver:
            await driver.execute("SELECT escape()")
            for _ in range(2):
                with suppress(*REFUSED):
                    await driver.execute(hiding)
        assert await untouched(walls)


@pytest.mark.parametrize("place", PLACES)
async def test_no_execution_option_lets_a_read_write(walls: Cluster, place: str) -> None:
    """By the session's connection, by its statements, by Core and by the Router: refused, or nothing is there."""
    options: list[dict[str, Any]] = [
        {"isolation_level": level} for level in ("AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
    ]
    options += [{"postgresql_readonly": False}, {"postgresql_readonly": False, "isolation_level": "READ COMMITTED"}]
    insert = text(WRITES["INSERT"])
    wrote = []

    async def attempt(how: str, db: Router, option: dict[str, Any]) -> None:
        with suppress(*REFUSED):
            if how == "Core":
                async with db.read.connect() as core:
                    await core.execution_options(**option)
                    await core.execute(insert)
                    await core.commit()
                return
            async with db.read() as session:
                if how == "connection":
                    await session.connection(execution_options=option)
                    await session.execute(insert)
                elif how == "connection, again":
                    with suppress(*REFUSED):
                        await session.connection(execution_options=option)
                    await session.execute(insert)
                elif how == "options of the connection":
                    connection = await session.connection()
                    await connection.execution_options(**option)
                    await connection.execute(insert)
                elif how == "statement":
                    await session.execute(insert, execution_options=option)
                else:
                    await session.execute(insert)
                await session.commit()

    for option in options:
        async with placed(walls, place) as db:
            for how in ("Core", "connection", "connection, again", "options of the connection", "statement"):
                await attempt(how, db, option)
                if not await untouched(walls):
                    wrote.append((how, option))
                    await mended(walls)
        async with placed(walls, place, execution_options=option) as db:
            for how in ("session", "connection"):
                await attempt(how, db, option)
            if not await untouched(walls):
                wrote.append(("the Router's", option))
                await mended(walls)
    assert wrote == []


@pytest.mark.parametrize("place", PLACES)
async def test_no_method_of_the_driver_lets_a_read_write(walls: Cluster, place: str) -> None:
    """What asyncpg prepares, runs many times, or runs in a transaction of the caller's."""
    lift = "SELECT set_config($1, $2, false)"
    off = ("default_transaction_read_only", "off")
    insert = WRITES["INSERT"]

    async def many(driver: Any) -> None:
        await driver.executemany(lift, [off])
        await driver.execute(insert)

    async def prepared(driver: Any) -> None:
        statement = await driver.prepare(lift)
        await statement.fetch(*off)
        await driver.execute(insert)

    async def prepared_before(driver: Any) -> None:
        statement = await driver.prepare(insert)
        async with driver.transaction():
            await driver.execute(lift, *off)
        await statement.fetch()

    async def transaction(driver: Any) -> None:
        own = driver.transaction()
        await own.start()
        await driver.execute(lift, *off)
        await own.commit()
        await driver.execute(insert)

    async def transaction_ended_by_text(driver: Any) -> None:
        statement = await driver.prepare(insert)
        async with driver.transaction():
            await driver.execute(lift, *off)
            with suppress(*REFUSED):
                await driver.execute("COMMIT")
            await statement.fetch()

    async def cursor(driver: Any) -> None:
        async with driver.transaction():
            async for _ in driver.cursor(lift, *off):
                pass
        await driver.execute(insert)

    async def copied(driver: Any) -> None:
        await driver.copy_from_query(lift, *off, output=os.devnull)
        await driver.execute(insert)

    wrote = []
    async with placed(walls, place) as db:
        for way in (many, prepared, prepared_before, transaction, transaction_ended_by_text, cursor, copied):
            with suppress(*REFUSED):
                async with db.read.asyncpg() as driver:
                    await way(driver)
            if not await untouched(walls):
                wrote.append(way.__name__)
                await mended(walls)
        async with db.read.asyncpg() as driver:  # and the next one finds the fence
            assert await driver.fetchval("SHOW transaction_read_only") == "on"
    assert wrote == []


async def test_the_doors_are_open_without_the_fence(walls: Cluster) -> None:
    """In a plain session the same statements write: what the tests above would miss."""
    async with placed(walls, "no replicas") as db:
        for sql in (WRITES["INSERT"], WRITES["a function"], BOTH["DO"]):
            async with db.write.begin() as session:
                await session.execute(text(sql))
            assert not await untouched(walls)
            await mended(walls)


async def test_the_error_names_the_way_out(walls: Cluster) -> None:
    """A statement that would lift the fence is refused before it is sent, as ReadOnly."""
    async with placed(walls, "replica") as db:
        for kind in KINDS:
            for door in ("SET TRANSACTION READ WRITE", "set_config, value bound", "DISCARD ALL", "BEGIN READ WRITE"):
                sql, values = DOORS[door]
                async with reading(db, kind) as (run, _, _):
                    with pytest.raises(ReadOnly, match=r"db\.write"):
                        await run(sql, *values)
