"""A connection without a session, of either kind, with one face: what both promise is tested once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lagwise import Router
from lagwise._pools.counters import checked_out
from lagwise.testing import Cluster

from .conftest import router
from .test_overtaken import PATIENT, both, stand_still

KINDS = ["core", "asyncpg"]
Ask = Callable[..., Awaitable[Any]]


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


def busy(db: Router) -> int:
    """Connections checked out, of all pools of all nodes."""
    return sum(
        checked_out(engine.sync_engine.pool) for pools in db.pools.values() for engine in pools.in_use().values()
    )


@pytest.fixture
async def still(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router whose replicas show what there was, and nothing that comes."""
    async with router(cluster, PATIENT) as db:
        await both(db)
        await stand_still(cluster)
        yield db
