"""Sessions and the Router, as an application without a web framework writes them."""

from __future__ import annotations

from typing import assert_type

from sqlalchemy import URL, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise import (
    LSN,
    Causality,
    CausalToken,
    InvalidToken,
    NoPrimary,
    NoReplica,
    NotCaughtUp,
    NotOpen,
    Policy,
    ReadOnly,
    Reason,
    Replica,
    Route,
    Router,
    RoutingError,
    StatementTimeout,
)

URL_TEXT = "postgresql+asyncpg://app@localhost/app"


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)


async def waits(db: Router) -> None:
    """What a deployment waits for, and the limits of statements."""
    token = await db.caught_up(timeout=5)
    assert_type(token, CausalToken)
    assert_type(await db.caught_up(str(token)), CausalToken)
    async with db.read.begin(timeout=0.5) as reading, db.write.begin(sticky=False) as writing:
        assert_type(reading, AsyncSession)
        assert_type(writing, AsyncSession)
    times: list[type[TimeoutError]] = [NotCaughtUp, StatementTimeout]
    assert_type(times[0], type[TimeoutError])


def constructions() -> None:
    """A Router takes text, URLs, engines and Replicas, by name or in a row, and the engine's own options."""
    url: URL = make_url(URL_TEXT)
    engine: AsyncEngine = create_async_engine(url)
    assert_type(Router(URL_TEXT), Router)
    assert_type(Router(primary=URL_TEXT, replicas={"replica-1": URL_TEXT}), Router)
    assert_type(Router(url, {"a": url, "b": engine, "c": URL_TEXT, "d": Replica(url, weight=2)}), Router)
    assert_type(Router(engine, [engine, URL_TEXT, url, Replica(engine)]), Router)
    assert_type(Router(engine, (URL_TEXT,), policy=Policy(max_lag=1, sticky_window=2.5)), Router)
    assert_type(Router(URL_TEXT, session_options={"autoflush": False}, pool_size=5, echo=True), Router)
    replicas: dict[str, str] = {"replica-1": URL_TEXT}
    engines: list[AsyncEngine] = [engine]
    named: dict[str, Replica] = {"replica-1": Replica(URL_TEXT)}
    assert_type(Router(URL_TEXT, replicas), Router)
    assert_type(Router(URL_TEXT, engines), Router)
    assert_type(Router(URL_TEXT, named), Router)
    policy = Policy(catch_up=0, fall_back=False, without_primary="refuse", probe_interval=1, probe_timeout=2)
    assert_type(policy.max_lag, float)
    assert_type(policy.fall_back, bool)


async def reads(db: Router) -> None:
    """`db.read()` is an AsyncSession: its results are typed as everywhere."""
    async with db as opened:
        assert_type(opened, Router)
    assert_type(db.read(), AsyncSession)
    async with db.read() as session:
        assert_type(session, AsyncSession)
        assert_type(await session.get(Item, 1), Item | None)
        assert_type((await session.scalars(select(Item))).one(), Item)
        await session.execute(text("SELECT 1"))
        route: Route = session.info["lagwise.route"]
        assert_type(route.node, str | None)
        assert_type(route.reason, Reason)
        assert_type(route.on_replica, bool)
    async with db.read(max_staleness=1.0) as session, db.read(primary=True), db.read(snapshot=True) as snapshot:
        assert_type(session, AsyncSession)
        assert_type(snapshot, AsyncSession)
    async with db.read.begin() as session:
        assert_type(session, AsyncSession)


async def writes(db: Router) -> None:
    """`db.write` commits by `begin()`, or by hand."""
    async with db.write.begin() as session:
        assert_type(session, AsyncSession)
        session.add(Item())
    async with db.write() as session:
        assert_type(session, AsyncSession)
        await session.commit()


async def connections(db: Router) -> None:
    """`db.read.connect()` is an AsyncConnection; the driver's own is what the driver says of itself."""
    assert_type(db.read.connect(max_staleness=1.0, primary=False, snapshot=True), AsyncConnection)
    async with db.read.connect() as connection:
        assert_type(connection, AsyncConnection)
        assert_type((await connection.scalars(select(Item.id))).one(), int)
    async with db.read.asyncpg(snapshot=True) as reading, db.write.asyncpg() as writing:
        await writing.execute("INSERT INTO item DEFAULT VALUES")
        await reading.fetchval("SELECT $1::int", 1)


def makers(db: Router) -> tuple[async_sessionmaker[AsyncSession], async_sessionmaker[AsyncSession]]:
    """Both fit wherever an async_sessionmaker is expected."""
    return db.read, db.write


def causality() -> None:
    """A context manager around a token, from text, from a token or from nothing."""
    with Causality(None) as seen:
        assert_type(seen, Causality)
        assert_type(seen.token, CausalToken)
        assert_type(str(seen.token), str)
    with Causality("text"), Causality(seen.token), Causality():
        assert_type(Causality.current(), Causality | None)
    assert_type(CausalToken.parse("").merge(seen.token), CausalToken)


def values(db: Router) -> None:
    """Positions are numbers, nodes have names, and the administrator's calls answer nothing."""
    assert_type(LSN.parse("0/0"), LSN)
    assert_type(LSN(8).normalised(), LSN)
    assert_type(LSN(8) - LSN(4), int)
    for node in db.view.nodes:
        assert_type(node.name, str)
        assert_type(node.staleness(0.0), float)
        if node.reading is not None:
            assert_type(node.reading.lsn, LSN)
    db.drain("replica-1")
    db.undrain("replica-1")


def errors() -> tuple[type[RoutingError], ...]:
    """Every error is a RoutingError."""
    return NoPrimary, NoReplica, ReadOnly, InvalidToken, NotOpen
