"""Sessions of `db.write` and `db.read` behave as `AsyncSession` in every public name it has."""

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import sqlalchemy
from sqlalchemy import Table, delete, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lagwise import Router
from lagwise.errors import ReadOnly
from lagwise.testing import Cluster, wait_until


class Base(DeclarativeBase):
    """The one table here."""


class Fruit(Base):
    __tablename__ = "fruit"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


ROWS = [(1, "apple"), (2, "pear")]
NAMES = select(Fruit.name).order_by(Fruit.id)

# What each name of AsyncSession is used for here: a call that answers with what can be compared.
Call = Callable[[AsyncSession], Awaitable[Any]]
TABLE: dict[str, Call] = {}
WRITES: set[str] = set()
"""Names whose use sends a write: a read session raises `ReadOnly` there, and that is the one difference."""

# What comes in place of the plain session's answer, by name and kind, and why.
DIFFERENCES: dict[tuple[str, str], Any] = {
    # A plain read holds its connection only while its statement runs, and is in no transaction afterwards.
    ("in_transaction", "read"): (False, False, False),
    ("in_transaction", "read on the primary"): (False, False, False),
}


def use(name: str, *, writes: bool = False) -> Callable[[Call], Call]:
    """Enter a use of this name into the table."""

    def enter(call: Call) -> Call:
        TABLE[name] = call
        if writes:
            WRITES.add(name)
        return call

    return enter


async def _first(session: AsyncSession) -> Fruit:
    return (await session.scalars(select(Fruit).order_by(Fruit.id))).first() or pytest.fail("no rows")


def _bind(session: AsyncSession) -> Any:
    assert session.bind is not None
    return session.bind


async def _names(session: AsyncSession) -> list[str]:
    return list((await session.scalars(NAMES)).all())


@use("aclose")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    await session.aclose()
    return item in session, session.in_transaction()


@use("add")
async def _(session: AsyncSession) -> Any:
    item = Fruit(id=3, name="fig")
    session.add(item)
    return item in session, list(session.new) == [item]


@use("add_all")
async def _(session: AsyncSession) -> Any:
    items = [Fruit(id=3, name="fig"), Fruit(id=4, name="plum")]
    session.add_all(items)
    return [item in session for item in items], len(session.new)


@use("autoflush")
async def _(session: AsyncSession) -> Any:
    before, session.autoflush = session.autoflush, False
    session.add(Fruit(id=3, name="fig"))
    return before, session.autoflush, await _names(session)


@use("begin")
async def _(session: AsyncSession) -> Any:
    async with session.begin() as transaction:
        return transaction.is_active, transaction.session is session, await _names(session), session.in_transaction()


@use("begin_nested")
async def _(session: AsyncSession) -> Any:
    async with session.begin_nested() as savepoint:
        inside = savepoint.nested, await _names(session)
    return inside, session.in_nested_transaction(), await _names(session)


@use("bind")
async def _(session: AsyncSession) -> Any:
    return type(session.bind), _bind(session).dialect.name


@use("binds")
async def _(session: AsyncSession) -> Any:
    return session.binds


@use("bind_mapper")
async def _(session: AsyncSession) -> Any:
    session.bind_mapper(Fruit, _bind(session))
    return await _names(session)


@use("bind_table")
async def _(session: AsyncSession) -> Any:
    session.bind_table(cast("Table", Fruit.__table__), _bind(session))
    return await _names(session)


@use("close")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    await session.close()
    return item in session, session.in_transaction(), await _names(session)


@use("close_all")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        await type(session).close_all()
    return item in session, session.in_transaction()


@use("commit", writes=True)
async def _(session: AsyncSession) -> Any:
    session.add(Fruit(id=3, name="fig"))
    await session.commit()
    return session.in_transaction(), await _names(session)


@use("connection")
async def _(session: AsyncSession) -> Any:
    connection = await session.connection()
    again = await session.connection()
    return connection is again, connection.closed, (await connection.scalars(NAMES)).all()


@use("delete", writes=True)
async def _(session: AsyncSession) -> Any:
    await session.delete(await _first(session))
    await session.commit()
    return await _names(session)


@use("delete_all", writes=True)
async def _(session: AsyncSession) -> Any:
    items = (await session.scalars(select(Fruit))).all()
    await session.delete_all(items)
    await session.commit()
    return await _names(session)


@use("deleted")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    await session.delete(item)
    return list(session.deleted) == [item]


@use("dirty")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    item.name = "quince"
    return list(session.dirty) == [item]


@use("execute")
async def _(session: AsyncSession) -> Any:
    return [tuple(row) for row in (await session.execute(select(Fruit.id, Fruit.name).order_by(Fruit.id))).all()]


@use("execution_options")
async def _(session: AsyncSession) -> Any:
    return dict(session.execution_options)


@use("expire")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    session.expire(item)
    expired = inspect(item).expired
    await session.refresh(item)
    return expired, item.name


@use("expire_all")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    session.expire_all()
    return inspect(item).expired, (await _first(session)).name


@use("expunge")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    session.expunge(item)
    return item in session, item.name


@use("expunge_all")
async def _(session: AsyncSession) -> Any:
    await _first(session)
    session.expunge_all()
    return list(session)


@use("flush", writes=True)
async def _(session: AsyncSession) -> Any:
    session.add(Fruit(id=3, name="fig"))
    await session.flush()
    return list(session.new), await _names(session)


@use("get")
async def _(session: AsyncSession) -> Any:
    one, none = await session.get(Fruit, 1), await session.get(Fruit, 9)
    return one is await session.get(Fruit, 1), one and one.name, none


@use("get_async_bind")
async def _(session: AsyncSession) -> Any:
    return type(session.get_async_bind(Fruit))


@use("get_bind")
async def _(session: AsyncSession) -> Any:
    return session.get_bind().dialect.name, session.get_bind(Fruit).dialect.driver


@use("get_nested_transaction")
async def _(session: AsyncSession) -> Any:
    before = session.get_nested_transaction()
    savepoint = await session.begin_nested()
    return before, session.get_nested_transaction() is savepoint


@use("get_one")
async def _(session: AsyncSession) -> Any:
    return (await session.get_one(Fruit, 1)).name


@use("get_transaction")
async def _(session: AsyncSession) -> Any:
    before = session.get_transaction()
    transaction = await session.begin()
    during = session.get_transaction() is transaction
    await transaction.commit()
    return before, during, session.get_transaction()


@use("identity_key")
async def _(session: AsyncSession) -> Any:
    return session.identity_key(Fruit, 1), session.identity_key(instance=await _first(session))


@use("identity_map")
async def _(session: AsyncSession) -> Any:
    kept = (await session.scalars(select(Fruit))).all()
    return len(kept), sorted(key[1] for key in session.identity_map.keys())  # noqa: SIM118 - no dict: its values are what it iterates


@use("in_nested_transaction")
async def _(session: AsyncSession) -> Any:
    before = session.in_nested_transaction()
    async with session.begin_nested():
        return before, session.in_nested_transaction()


@use("in_transaction")
async def _(session: AsyncSession) -> Any:
    before = session.in_transaction()
    await _names(session)
    during = session.in_transaction()
    await session.rollback()
    return before, during, session.in_transaction()


@use("info")
async def _(session: AsyncSession) -> Any:
    session.info["colour"] = "green"  # among them is the route, for whom it interests
    return session.info["colour"], session.sync_session.info["colour"]


@use("invalidate")
async def _(session: AsyncSession) -> Any:
    await _names(session)
    await session.invalidate()
    return session.in_transaction(), await _names(session)


@use("is_active")
async def _(session: AsyncSession) -> Any:
    before = session.is_active
    await _names(session)
    return before, session.is_active


@use("is_modified")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    before, item.name = session.is_modified(item), "quince"
    return before, session.is_modified(item)


@use("merge")
async def _(session: AsyncSession) -> Any:
    item = await session.merge(Fruit(id=1, name="apple"))
    return item in session, item.name, session.is_modified(item)


@use("merge_all")
async def _(session: AsyncSession) -> Any:
    items = await session.merge_all([Fruit(id=key, name=name) for key, name in ROWS])
    return [(item in session, item.name) for item in items]


@use("new")
async def _(session: AsyncSession) -> Any:
    session.add(Fruit(id=3, name="fig"))
    return [item.name for item in session.new]


@use("no_autoflush")
async def _(session: AsyncSession) -> Any:
    session.add(Fruit(id=3, name="fig"))
    with session.no_autoflush:
        return await _names(session)


@use("object_session")
async def _(session: AsyncSession) -> Any:
    return session.object_session(await _first(session)) is session.sync_session, session.object_session(Fruit())


@use("refresh")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    item.name = "quince"
    with session.no_autoflush:
        await session.refresh(item)
    return item.name


@use("reset")
async def _(session: AsyncSession) -> Any:
    item = await _first(session)
    await session.reset()
    return item in session, session.in_transaction(), await _names(session)


@use("rollback")
async def _(session: AsyncSession) -> Any:
    session.add(Fruit(id=3, name="fig"))
    await session.rollback()
    return list(session.new), session.in_transaction(), await _names(session)


@use("run_sync")
async def _(session: AsyncSession) -> Any:
    return await session.run_sync(lambda sync, key: (isinstance(sync, Session), sync.get_one(Fruit, key).name), 1)


@use("scalar")
async def _(session: AsyncSession) -> Any:
    return await session.scalar(NAMES)


@use("scalars")
async def _(session: AsyncSession) -> Any:
    return (await session.scalars(NAMES)).all()


@use("stream")
async def _(session: AsyncSession) -> Any:
    return [row.name async for row in await session.stream(NAMES)]


@use("stream_scalars")
async def _(session: AsyncSession) -> Any:
    return [name async for name in await session.stream_scalars(NAMES)]


@use("sync_session")
async def _(session: AsyncSession) -> Any:
    return isinstance(session.sync_session, Session), isinstance(session.sync_session, session.sync_session_class)


@use("sync_session_class")
async def _(session: AsyncSession) -> Any:
    return issubclass(session.sync_session_class, Session)


@dataclass(frozen=True)
class Stage:
    """A cluster with a Router on it, and a plain engine on its primary."""

    cluster: Cluster
    db: Router
    engine: AsyncEngine
    plain: dict[str, Any] = field(default_factory=dict)

    async def expected(self, name: str) -> Any:
        """The outcome with a plain session, had once."""
        if name not in self.plain:
            self.plain[name] = await self.outcome("plain", TABLE[name])
        return self.plain[name]

    def session(self, kind: str) -> AsyncSession:
        """A new session of this kind."""
        match kind:
            case "write":
                return self.db.write()
            case "read":
                return self.db.read()
            case "read on the primary":
                return self.db.read(primary=True)
        return AsyncSession(self.engine, expire_on_commit=False)

    async def outcome(self, kind: str, call: Call) -> tuple[Any, list[tuple[int, str]]]:
        """What the call answers, or the class of what it raises, and the rows that are left when it is over."""
        answer: Any
        async with self.session(kind) as session:
            try:
                answer = await call(session)
            except Exception as error:
                answer = type(error)
                await session.rollback()
        async with self.engine.begin() as connection:
            query = select(Fruit.id, Fruit.name).order_by(Fruit.id)
            rows = [(key, name) for key, name in (await connection.execute(query)).all()]
            if rows != ROWS:
                await connection.execute(delete(Fruit))
                await connection.execute(insert(Fruit), [{"id": key, "name": name} for key, name in ROWS])
        if rows != ROWS:
            await self.cluster.caught_up()
        return answer, rows


@pytest.fixture(scope="module")
async def stage(running: Cluster) -> AsyncIterator[Stage]:
    primary, replica = running.nodes["primary"], running.nodes["replica-1"]
    engine = create_async_engine(primary.url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Fruit), [{"id": key, "name": name} for key, name in ROWS])
    await running.caught_up()
    async with Router(primary.url, [replica.url]) as db:
        await wait_until(lambda: db.view.rotation, what="the replica in rotation")
        yield Stage(running, db, engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


def _public() -> set[str]:
    """The public names of AsyncSession, on the class and on an instance."""
    return {name for name in {*dir(AsyncSession), *vars(AsyncSession())} if not name.startswith("_")}


def test_the_table_has_every_public_name() -> None:
    """SQLAlchemy has no public name on its session that is not tried here; the table has none that is gone."""
    assert _public() - TABLE.keys() == set()
    if sqlalchemy.__version__ >= "2.1":
        assert TABLE.keys() - _public() == set()


@pytest.mark.parametrize("kind", ["write", "read", "read on the primary"])
@pytest.mark.parametrize("name", sorted(TABLE.keys() & _public()))
async def test_it_behaves_as_an_async_session(stage: Stage, name: str, kind: str) -> None:
    """The same answer and the same rows as with a plain session; where it would write, a read raises `ReadOnly`."""
    expected = await stage.expected(name)
    if kind != "write" and name in WRITES:
        expected = ReadOnly, ROWS
    answer, rows = await stage.outcome(kind, TABLE[name])
    if (name, kind) in DIFFERENCES:
        expected = DIFFERENCES[name, kind], ROWS
        answer = answer.__name__ if isinstance(answer, type) else answer
    assert (answer, rows) == expected
