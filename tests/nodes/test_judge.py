"""The judge against a server: what it calls harmless leaves a real session as it was."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings

from lagwise._decide.catalog import Catalog
from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from lagwise._nodes.catalog import read_catalog
from lagwise.testing import Cluster

from .sql import DOMAINS, FILL, SETUP, State, state_of, statements

COUNT = int(os.environ.get("LAGWISE_STATEMENTS", "300"))
"""How many statements are tried."""


@asynccontextmanager
async def database(setup: str) -> AsyncIterator[Any]:
    """A connection to a database of which nothing else knows."""
    async with Cluster(replicas=0) as cluster:
        await cluster.primary.execute(setup)
        await cluster.primary.execute(FILL)
        url = cluster.primary.direct_url.replace("+asyncpg", "")
        connection = await asyncpg.connect(url, statement_cache_size=0, command_timeout=20)
        yield connection
        await connection.close()


@pytest.fixture(scope="module")
async def connection() -> AsyncIterator[Any]:
    """A connection to a database that has everything."""
    async with database(SETUP + DOMAINS) as connection:
        yield connection


@pytest.fixture(scope="module")
async def catalog(connection: Any) -> Catalog:
    """What that database says of its names."""
    return await read_catalog(connection, 20)


async def afresh(connection: Any, *, written: bool = False) -> None:
    """Undo what the session has set, and perhaps written, and fence it."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")
    await connection.execute("DISCARD ALL")
    if written:
        await connection.execute(FILL)
    await connection.execute("SET default_transaction_read_only = on")


async def run(connection: Any, sql: str, *around: str) -> tuple[State, State | None]:
    """The session's state before and after a statement; None for a transaction that it made fail."""
    for statement in around:
        await connection.execute(statement)
    before = await state_of(connection)
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        await connection.execute(sql)
    try:
        return before, await state_of(connection)
    except asyncpg.InFailedSQLTransactionError:
        return before, None


def missed(effect: Effect, before: State, after: State | None, *, inside: bool) -> str | None:
    """What the judge did not foresee, in a word."""
    if Effect.OPAQUE in effect or after is None:
        return None
    if before.fenced and not after.fenced and not effect & (Effect.LIFTS | Effect.RESETS):
        return "lifted"
    if before.in_transaction != after.in_transaction and not effect & (Effect.BEGINS | Effect.ENDS):
        return "transaction"
    excused = Effect.TOUCHES | Effect.RESETS | Effect.LIFTS | Effect.ENDS
    if inside or after.in_transaction:
        excused |= Effect.TRANSACTION
    if before.rest != after.rest and not effect & excused:
        return "left something"
    return None


@pytest.mark.parametrize("domains", ["", DOMAINS], ids=["plain types", "domains"])
async def test_what_is_judged_harmless_leaves_its_session_as_it_was(domains: str) -> None:
    """Generated statements, run alone and in a transaction, behind the fence and without: not one is missed."""
    async with database(SETUP + domains) as connection:
        tally = await try_statements(connection, await read_catalog(connection, 20))
    print(tally)  # noqa: T201
    assert tally["statements"] >= COUNT // 2
    assert tally["judged harmless"] > (0 if domains else tally["statements"] // 20)
    assert tally["runs that changed their session"] > tally["statements"] // 20


async def try_statements(connection: Any, catalog: Catalog) -> Counter[str]:
    """Try each statement that is generated, and count."""
    loop = asyncio.get_running_loop()
    tally: Counter[str] = Counter()

    async def check(sql: str) -> None:
        effect = effects_of(sql, catalog)
        for around in ((), ("BEGIN",), ("SET default_transaction_read_only = off",)):
            await afresh(connection)
            before, after = await run(connection, sql, *around)
            found = missed(effect, before, after, inside="BEGIN" in around)
            assert found is None, f"{found}: {sql!r} is {effect!r}\n{before}\n{after}"
            if effect & (Effect.WRITES | Effect.OPAQUE):
                await afresh(connection, written=True)
            tally["runs that changed their session"] += before != after
        tally["statements"] += 1
        tally["judged harmless"] += effect is Effect.NOTHING

    @settings(
        max_examples=COUNT,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(statements())
    def every(sql: str) -> None:
        asyncio.run_coroutine_threadsafe(check(sql), loop).result(60)

    await asyncio.to_thread(every)
    return tally


if COUNT > 1000:
    test_what_is_judged_harmless_leaves_its_session_as_it_was = pytest.mark.timeout(COUNT // 2)(
        test_what_is_judged_harmless_leaves_its_session_as_it_was
    )


def by_patterns(sql: str) -> bool:
    """A judge that looks for the names of calls with a regular expression."""
    calls = re.findall(r"([\w.]+)\s*\((?!\s*(?:select|values|with)\b)", sql, re.IGNORECASE)
    return sql.startswith("SELECT") and all(name.lower() in {"lower", "count", "max"} for name in calls)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT become(values) FROM metric",
        "SELECT metric.enter FROM metric",
        "SELECT name::tenant FROM metric",
        "SELECT name !> values FROM metric",
        "SELECT * FROM through",
    ],
)
async def test_patterns_miss_what_the_parser_and_the_catalog_see(connection: Any, catalog: Catalog, sql: str) -> None:
    """A call with VALUES in it, a call that no text shows: patterns call them harmless, and they are not."""
    await afresh(connection)
    before = await state_of(connection)
    await connection.execute(sql)
    assert await state_of(connection) != before
    assert by_patterns(sql)
    assert Effect.OPAQUE in effects_of(sql, catalog)
