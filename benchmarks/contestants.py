"""The contestants in one process: the sessions people write today, the limits of what they stand on, and lagwise."""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Delete, Update, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from benchmarks.application import POOL, Item, Servers, dsn
from benchmarks.peer import Peer
from lagwise import Causality, CausalToken, Policy, Router
from lagwise.testing import wait_until

RECIPE = "AsyncSession, pool_pre_ping (the usual recipe)"
PLAIN = "AsyncSession"
BARE = "bare AUTOCOMMIT engine"
BARE_CORE = "bare AUTOCOMMIT engine, Core"
RAW = "raw asyncpg pool"
ALCHEMY = "advanced-alchemy, routing"
LAGWISE = "lagwise"
WITH_TOKEN = "lagwise, a client with a token"
CORE = "lagwise, Core"
DRIVER = "lagwise, raw asyncpg"

Run = Callable[[], Awaitable[object]]
# No probe falls into the count of round trips; what a session itself asks for still does.
QUIET = Policy(probe_interval=600, probe_timeout=60, max_lag=600, sticky_window=600, abort_after=600)


@dataclass(frozen=True, slots=True)
class Timing:
    """Some sessions, one after the other: the seconds of each, and the processor's seconds for all of them."""

    seconds: list[float]
    cpu: float


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of running a number of sessions."""

    name: str
    batch: Callable[[int], Awaitable[Timing]]
    limit: str
    """The row that shows what lies beneath: what it adds is measured against that."""


def contestant(name: str, run: Run, limit: str) -> Contestant:
    """One whose sessions run in this process."""

    async def batch(count: int) -> Timing:
        seconds, cpu = [], time.process_time()
        for _ in range(count):
            start = time.perf_counter()
            await run()
            seconds.append(time.perf_counter() - start)
        return Timing(seconds, time.process_time() - cpu)

    return Contestant(name, batch, limit)


def elsewhere(name: str, peer: Peer, run: str, limit: str) -> Contestant:
    """One whose sessions run in another process."""

    async def batch(count: int) -> Timing:
        return Timing(**await peer.ask(run=run, count=count))

    return Contestant(name, batch, limit)


def engine_on(stack: AsyncExitStack, url: str, **options: Any) -> AsyncEngine:
    """An engine with the pool that all contestants have, until the stack unwinds."""
    engine = create_async_engine(url, **{**POOL, **options})
    stack.push_async_callback(engine.dispose)
    return engine


def maker_on(stack: AsyncExitStack, url: str, **options: Any) -> async_sessionmaker[AsyncSession]:
    """A session maker on an engine of its own."""
    return async_sessionmaker(engine_on(stack, url, **options), expire_on_commit=False)


def by_get_bind(stack: AsyncExitStack, servers: Servers) -> async_sessionmaker[AsyncSession]:
    """https://docs.sqlalchemy.org/en/20/orm/persistence_techniques.html#custom-vertical-partitioning."""
    leader = engine_on(stack, servers.primary).sync_engine
    followers = [engine_on(stack, servers.replica).sync_engine]

    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
            if self._flushing or isinstance(clause, Update | Delete):
                return leader
            return random.choice(followers)

    return async_sessionmaker(sync_session_class=RoutingSession, expire_on_commit=False)


@asynccontextmanager
async def routing(servers: Servers, policy: Policy | None = None) -> AsyncIterator[Router]:
    """lagwise, with the replica in rotation."""
    pool: dict[str, Any] = {**POOL}
    async with Router(servers.primary, {"replica-1": servers.replica}, policy=policy, **pool) as db:
        await wait_until(lambda: bool(db.view.rotation), what="the replica is in rotation")
        yield db


def reading(make: Callable[[], AsyncSession]) -> Run:
    """One session that gets a row by its primary key."""

    async def run() -> None:
        async with make() as session:
            assert await session.get(Item, 1) is not None

    return run


def writing(make: Callable[[], AsyncSession]) -> Run:
    """One session that inserts a row and commits."""

    async def run() -> None:
        async with make() as session:
            session.add(Item(name="written"))
            await session.commit()

    return run


def carried(run: Run, token: CausalToken | None = None) -> Run:
    """The same inside a causality, as behind the middleware."""

    async def carry() -> None:
        with Causality(token):
            await run()

    return carry


def selecting(connect: Callable[[], Any]) -> Run:
    """One Core connection that selects the row."""

    async def run() -> None:
        async with connect() as connection:
            (await connection.execute(select(Item.id, Item.name).where(Item.id == 1))).one()

    return run


def fetching(acquire: Callable[[], Any]) -> Run:
    """One raw connection that fetches the row."""

    async def run() -> None:
        async with acquire() as connection:
            await connection.fetchrow("SELECT id, name FROM item WHERE id = $1", 1)

    return run


async def written(db: Router) -> CausalToken:
    """The token of a client that has written."""
    with Causality() as seen:
        await writing(db.write)()
    return seen.token


async def readers(stack: AsyncExitStack, servers: Servers, peer: Peer | None) -> list[Contestant]:
    """The contestants that can read the row."""
    db = await stack.enter_async_context(routing(servers, QUIET))
    pool = await stack.enter_async_context(asyncpg.create_pool(dsn(servers.replica), min_size=1, max_size=20))
    get_read_db = maker_on(stack, servers.replica)
    autocommit = engine_on(stack, servers.replica, isolation_level="AUTOCOMMIT")
    bare = async_sessionmaker(autocommit, expire_on_commit=False)
    return [
        contestant(RAW, fetching(pool.acquire), RAW),
        contestant(BARE_CORE, selecting(autocommit.connect), BARE_CORE),
        contestant(BARE, reading(bare), BARE),
        contestant(PLAIN, reading(maker_on(stack, servers.replica)), BARE),
        contestant(RECIPE, reading(maker_on(stack, servers.replica, pool_pre_ping=True)), BARE),
        contestant("two hand-made makers: get_read_db", reading(get_read_db), BARE),
        contestant("Session.get_bind, of SQLAlchemy's documentation", reading(by_get_bind(stack, servers)), BARE),
        *([elsewhere(ALCHEMY, peer, "read", BARE)] if peer else []),
        contestant(LAGWISE, reading(db.read), BARE),
        contestant(WITH_TOKEN, carried(reading(db.read), await written(db)), BARE),
        contestant(CORE, selecting(db.read.connect), BARE_CORE),
        contestant(DRIVER, fetching(db.read.asyncpg), RAW),
    ]


async def writers(stack: AsyncExitStack, servers: Servers, peer: Peer | None) -> list[Contestant]:
    """The contestants that can write a row."""
    db = await stack.enter_async_context(routing(servers, QUIET))
    return [
        contestant(PLAIN, writing(maker_on(stack, servers.primary)), PLAIN),
        contestant(RECIPE, writing(maker_on(stack, servers.primary, pool_pre_ping=True)), PLAIN),
        contestant("two hand-made makers: get_write_db", writing(maker_on(stack, servers.primary)), PLAIN),
        contestant("Session.get_bind, of SQLAlchemy's documentation", writing(by_get_bind(stack, servers)), PLAIN),
        *([elsewhere(ALCHEMY, peer, "write", PLAIN)] if peer else []),
        contestant("lagwise, without a token", writing(db.write), PLAIN),
        contestant("lagwise, with its token", carried(writing(db.write)), PLAIN),
    ]
