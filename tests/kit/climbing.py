"""Climbers: they go through a door out of a read session, and write."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lagwise import Router
from lagwise.testing import Cluster
from tests.kit.doors import DOORS, UNTOUCHED

# Every door with every write, everywhere; or each door with one of them, in turn.
EVERY = bool(os.environ.get("LAGWISE_TEST_DOORS"))
KINDS = ["session", "Core", "asyncpg"]
WAYS = ["next", "after a commit", "in a block", "after a block"]
REFUSED = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)
Run = Callable[..., Awaitable[Any]]
End = Callable[[], Awaitable[object]]


@asynccontextmanager
async def reading(db: Router, kind: str) -> AsyncIterator[tuple[Run, End, Callable[[], Any]]]:
    """How a read of this kind runs a statement, how it commits, and how it begins a block of its own."""
    if kind == "asyncpg":
        async with db.read.asyncpg() as driver:

            async def fetch(sql: str, *values: object) -> Any:
                return await (driver.fetch(sql, *values) if values else driver.execute(sql))

            async def nothing() -> None: ...

            yield fetch, nothing, driver.transaction
    elif kind == "Core":
        async with db.read.connect() as core:
            yield (lambda sql, *values: core.exec_driver_sql(sql, values)), core.commit, core.begin
    else:
        async with db.read() as session:

            async def execute(sql: str, *values: object) -> Any:
                for number in range(len(values)):
                    sql = sql.replace(f"${number + 1}::text", f"CAST(:v{number} AS text)")
                    sql = sql.replace(f"${number + 1}", f":v{number}")
                return await session.execute(text(sql), {f"v{n}": value for n, value in enumerate(values)})

            yield execute, session.commit, session.begin


async def untouched(cluster: Cluster) -> bool:
    """Whether nothing was written."""
    return bool(await cluster.primary.fetchval(UNTOUCHED) == "untouched")


async def mended(cluster: Cluster) -> None:
    """As before the write."""
    await cluster.primary.execute(
        "DROP TABLE IF EXISTS forbidden; TRUNCATE door; INSERT INTO door VALUES ('untouched')"
    )


async def climb(db: Router, kind: str, door: str, write: str, how: str) -> None:
    """Through the door, and write: in the next statement, after a commit, in a block of its own, and after it."""
    sql, values = DOORS[door]
    async with reading(db, kind) as (run, commit, begin):
        if how == "in a block":
            with suppress(*REFUSED):
                async with begin():
                    await run(sql, *values)
                    await run(write)
            return
        if how == "after a block":
            with suppress(*REFUSED):
                async with begin():
                    await run(sql, *values)
        else:
            with suppress(*REFUSED):
                await run(sql, *values)
            if door == "PREPARE and EXECUTE":
                with suppress(*REFUSED):
                    await run("EXECUTE lifting")
        if how == "after a commit":
            with suppress(*REFUSED):
                await commit()
        for _ in range(2):
            with suppress(*REFUSED):
                await run(write)
            with suppress(*REFUSED):
                await commit()
