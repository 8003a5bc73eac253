"""arq: a job takes the token as one more keyword, and reads behind it. `arq examples.jobs.arq.WorkerSettings`."""

import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any

from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job
from sqlalchemy import text

from lagwise import Causality, Router

# A job has time: it waits a second for a replica before it reads from the primary.
db = Router.from_env(catch_up=1.0)


async def enqueue(redis: ArqRedis, job: str, *args: Any, **kwargs: Any) -> Job | None:
    """`redis.enqueue_job`, with what its caller has seen."""
    seen = Causality.current()
    return await redis.enqueue_job(job, *args, **kwargs, seen=str(seen.token) if seen else None)


def causal(job: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A job that sees what its sender has seen, and leaves nothing behind for the next."""

    @functools.wraps(job)
    async def run(ctx: dict[str, Any], *args: Any, seen: str | None = None, **kwargs: Any) -> Any:
        with Causality(seen):
            return await job(ctx, *args, **kwargs)

    return run


@causal
async def count(_: dict[str, Any], name: str) -> tuple[int, str]:
    async with db.read() as session:
        found = await session.scalar(text("SELECT count(*) FROM item WHERE name = :name"), {"name": name})
        return found or 0, str(session.info["lagwise.route"].reason)


async def start(_: dict[str, Any]) -> None:
    await db.__aenter__()


async def stop(_: dict[str, Any]) -> None:
    await db.__aexit__(None, None, None)


class WorkerSettings:
    functions = (count,)
    on_startup = start
    on_shutdown = stop
    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
