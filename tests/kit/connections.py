"""A connection without a session, of either kind, with one face: what both promise is tested once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from asyncpg import InterfaceError, InternalClientError, PostgresError  # type: ignore[import-untyped]

from lagwise import Router

KINDS = ["core", "asyncpg"]
Ask = Callable[..., Awaitable[Any]]
GONE = (OSError, InterfaceError, InternalClientError, PostgresError)
"""What asyncpg raises where its connection is gone; the third where it read so, and the socket is open."""


@asynccontextmanager
async def reading(db: Router, kind: str, **options: Any) -> AsyncIterator[Ask]:
    """One statement in, its first value out; `$1` for what it is given."""
    if kind == "asyncpg":
        async with db.read.asyncpg(**options) as driver:
            yield driver.fetchval
        return
    async with db.read.connect(**options) as core:

        async def ask(sql: str, *values: Any) -> Any:
            result = await core.exec_driver_sql(sql, values)
            return result.scalar() if result.returns_rows else None

        yield ask


async def count(ask: Ask, name: str) -> int:
    """How many items of this name there are, here."""
    return int(await ask("SELECT count(*) FROM item WHERE name = $1", name))


async def on_replica(ask: Ask) -> bool:
    """Who answers, asked of the server."""
    return bool(await ask("SELECT pg_is_in_recovery()"))


async def write(db: Router, name: str) -> None:
    """A write, acknowledged, by the driver itself."""
    async with db.write.asyncpg() as connection:
        await connection.execute("INSERT INTO item (name) VALUES ($1)", name)
