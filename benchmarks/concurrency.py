"""Many sessions at a time in one process: how many a second, and how many connections that opens."""

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker

from benchmarks.application import Servers, prepared
from benchmarks.contestants import BARE, PLAIN, RECIPE, Run, carried, engine_on, reading, routing, writing
from benchmarks.progress import progress
from benchmarks.tables import Table
from benchmarks.turns import order
from lagwise import Router

LEVELS = (1, 16, 64)
BUSIEST = LEVELS[-1]
COLUMNS = (
    *(f"per s at {tasks}" for tasks in LEVELS),
    *(f"ms at {tasks}" for tasks in LEVELS),
    "x recipe",
    "x limit",
    "opened at 16",
    "opened at 64",
)
SQLALCHEMYS = {"pool_size": 5, "max_overflow": 10}
"""SQLAlchemy's own defaults."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """A session that many tasks run at once, and the count of connections opened for it so far."""

    name: str
    run: Run
    opened: Callable[[], int]


@dataclass(slots=True)
class Took:
    """What the turns of one crowd at one level came to."""

    rates: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    opened: int = 0
    """Connections."""


async def rush(crowd: Crowd, tasks: int, sessions: int, took: Took) -> None:
    """`tasks` at once share out the sessions."""
    left = sessions
    opened = crowd.opened()

    async def one() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            await crowd.run()
            took.times.append(time.perf_counter() - start)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(one())
    took.rates.append(sessions / (time.perf_counter() - start))
    took.opened += crowd.opened() - opened


def crowd(stack: AsyncExitStack, name: str, url: str, run_of: Callable[..., Run], **options: object) -> Crowd:
    """Sessions on an engine of their own, whose pool says when it opens a connection."""
    engine = engine_on(stack, url, **options)
    opened = 0

    def count(_connection: object, _record: object) -> None:
        nonlocal opened
        opened += 1

    event.listen(engine.sync_engine.pool, "connect", count)
    return Crowd(name, run_of(async_sessionmaker(engine, expire_on_commit=False)), lambda: opened)


def opened_by(db: Router) -> Callable[[], int]:
    """The connections that all of a Router's pools have opened; not the monitor's."""
    return lambda: sum(counters.opened for pools in db.pools.values() for counters in pools.tallies.values())


async def readers(stack: AsyncExitStack, servers: Servers) -> list[Crowd]:
    db = await stack.enter_async_context(routing(servers))
    own = {"isolation_level": "AUTOCOMMIT", **SQLALCHEMYS}
    return [
        crowd(stack, BARE, servers.replica, reading, isolation_level="AUTOCOMMIT"),
        crowd(stack, f"{BARE}, SQLAlchemy's default pool", servers.replica, reading, **own),
        crowd(stack, PLAIN, servers.replica, reading),
        crowd(stack, RECIPE, servers.replica, reading, pool_pre_ping=True),
        Crowd("lagwise", reading(db.read), opened_by(db)),
    ]


async def writers(stack: AsyncExitStack, servers: Servers) -> list[Crowd]:
    db = await stack.enter_async_context(routing(servers))
    return [
        crowd(stack, PLAIN, servers.primary, writing),
        crowd(stack, f"{PLAIN}, SQLAlchemy's default pool", servers.primary, writing, **SQLALCHEMYS),
        crowd(stack, RECIPE, servers.primary, writing, pool_pre_ping=True),
        Crowd("lagwise, without a token", writing(db.write), opened_by(db)),
        Crowd("lagwise, with its token", carried(writing(db.write)), opened_by(db)),
    ]


async def measure(crowds: list[Crowd], limit: str, rounds: int, sessions: int) -> dict[str, dict[str, float]]:
    """The rows: each crowd runs a few sessions at each level, again and again."""
    took = {each.name: {tasks: Took() for tasks in LEVELS} for each in crowds}
    for each in crowds:
        await rush(each, BUSIEST, 4 * BUSIEST, Took())  # its connections are open, its statements prepared
    for turn in range(rounds):
        for tasks in LEVELS:
            for each in order(crowds, turn):
                await rush(each, tasks, sessions, took[each.name][tasks])
    rates = {name: {tasks: statistics.median(t.rates) for tasks, t in levels.items()} for name, levels in took.items()}
    return {
        name: {
            **{f"per s at {tasks}": rates[name][tasks] for tasks in LEVELS},
            **{f"ms at {tasks}": statistics.median(levels[tasks].times) * 1000 for tasks in LEVELS},
            "x recipe": rates[name][16] / rates[RECIPE][16],
            "x limit": rates[name][16] / rates[limit][16],
            **{f"opened at {tasks}": levels[tasks].opened / rounds / sessions * 1000 for tasks in LEVELS[1:]},
        }
        for name, levels in took.items()
    }


async def run(quick: bool) -> list[Table]:
    """Reads, then writes."""
    rounds, sessions = (2, 128) if quick else (12, 384)
    notes = (
        "x recipe, x limit: sessions per second, 16 at once, as a multiple; more is better.",
        "opened: connections opened per 1000 sessions, once everything is warm.",
    )
    tables = []
    async with AsyncExitStack() as stack:
        _, servers = await stack.enter_async_context(prepared())
        for key, enter, limit in (("read", readers, BARE), ("write", writers, PLAIN)):
            progress(f"concurrency: {key}")
            rows = await measure(await enter(stack, servers), limit, rounds, sessions)
            title = f"concurrency, {key}: 1, 16 and 64 sessions at once, {limit} as the limit"
            drawn = ("per s at 16", "per s at 64")
            tables.append(Table(f"concurrency-{key}", title, COLUMNS, rows, notes, drawn))
    return tables
