"""The application under test: a register of keys whose every write gets a version in commit order."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Policy, Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, health_router, lifespan, reads
from lagwise.testing import Cluster
from lagwise.testing.history import Version

SECRET = "for tests only"
FRESH = 1.0  # seconds, of reads that ask for it

SCHEMA = """
CREATE TABLE counter (number bigint NOT NULL);
INSERT INTO counter VALUES (0);
CREATE TABLE register (key text PRIMARY KEY, timeline int, number bigint, value text);
CREATE TABLE entry (timeline int, number bigint PRIMARY KEY, key text, value text);
"""
# The counter's row is locked from here to COMMIT: numbers are in commit order.
WRITE = text("""
WITH ticket AS (UPDATE counter SET number = number + 1 RETURNING number),
     made AS (INSERT INTO entry
              SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,
                     number, :key, :value
              FROM ticket RETURNING *)
INSERT INTO register SELECT key, timeline, number, value FROM made
ON CONFLICT (key) DO UPDATE SET timeline = excluded.timeline, number = excluded.number, value = excluded.value
RETURNING timeline, number, value, current_setting('cluster_name') AS node
""")
READ = text("""
SELECT timeline, number, value, current_setting('cluster_name') AS node
FROM (SELECT 1 AS one) AS always LEFT JOIN register ON key = :key
""")


async def prepare(cluster: Cluster) -> None:
    """The tables, on every node."""
    await cluster.primary.execute(SCHEMA)
    await cluster.caught_up()


async def survivors(cluster: Cluster) -> Mapping[Version, tuple[str, str | None]]:
    """What became of the writes: what the final primary has."""
    rows = await cluster.primary.fetch("SELECT timeline, number, key, value FROM entry")
    return {Version(row["timeline"], row["number"]): (row["key"], row["value"]) for row in rows}


async def put(session: AsyncSession, key: str, value: str) -> dict[str, Any]:
    """Write, and say under which version."""
    return dict((await session.execute(WRITE, {"key": key, "value": value})).mappings().one())


async def get(session: AsyncSession, key: str) -> dict[str, Any]:
    """Read; nothing but nulls where the key is absent."""
    return dict((await session.execute(READ, {"key": key})).mappings().one())


def application(db: Router) -> FastAPI:
    """The register over HTTP."""
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=SECRET, route_header=True)
    app.include_router(health_router(db), prefix="/health")

    @app.put("/plain/{key}/{value}")
    async def write(key: str, value: str, session: WriteSession) -> dict[str, Any]:
        return await put(session, key, value)

    @app.get("/plain/{key}")
    async def read(key: str, session: ReadSession) -> dict[str, Any]:
        return await get(session, key)

    @app.get("/snapshot/{key}")
    async def snapshot(key: str, session: Annotated[AsyncSession, reads(snapshot=True)]) -> dict[str, Any]:
        return await get(session, key)

    @app.get("/fresh/{key}")
    async def fresh(key: str, session: Annotated[AsyncSession, reads(max_staleness=FRESH)]) -> dict[str, Any]:
        return await get(session, key)

    @app.post("/busy/{seconds}")
    async def busy(seconds: float) -> None:
        time.sleep(seconds)  # what an endpoint that computes does to all others

    return app


async def main() -> None:
    """One worker process: prints its port, serves until it is told to stop."""
    urls: dict[str, str] = dict(pair.split("=", 1) for pair in os.environ["NODES"].split())
    db = Router(urls.pop("primary"), urls, policy=eval(os.environ["POLICY"], {"Policy": Policy}))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)  # noqa: T201
        await uvicorn.Server(uvicorn.Config(application(db), log_level="error")).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
