"""A read session never writes: it raises ReadOnly, says the way out, and nothing is there afterwards."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Policy, ReadOnly, Router
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.routers import in_rotation

Write = Callable[[AsyncSession], Awaitable[object]]


async def orm_flush(session: AsyncSession) -> None:
    session.add(Item(name="forbidden"))
    await session.flush()


WRITES: dict[str, Write] = {
    "ORM flush": orm_flush,
    "Core insert": lambda session: session.execute(insert(Item).values(name="forbidden")),
    "Core update": lambda session: session.execute(update(Item).values(name="forbidden")),
    "text": lambda session: session.execute(text("INSERT INTO item (name) VALUES ('forbidden')")),
    "DML in a CTE": lambda session: session.execute(
        text("WITH made AS (INSERT INTO item (name) VALUES ('forbidden') RETURNING id) SELECT id FROM made")
    ),
    "select for update": lambda session: session.execute(select(Item).with_for_update()),
    "DDL": lambda session: session.execute(text("CREATE TABLE forbidden (id int)")),
    "nextval": lambda session: session.execute(text("SELECT nextval('item_id_seq')")),
}


async def refused(db: Router, write: Write, **options: bool) -> str:
    """Attempt the write and commit; the message of the ReadOnly it meets, once nothing is found written."""
    session = db.read(**options)
    async with session:
        with pytest.raises(ReadOnly) as caught:
            await write(session)
            await session.commit()
    assert isinstance(caught.value, SQLAlchemyError)
    assert getattr(caught.value.__cause__, "sqlstate", None) is not None
    async with db.write() as session:
        assert len((await session.scalars(select(Item).where(Item.name == "forbidden"))).all()) == 0
    return str(caught.value)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_on_a_replica(db: Router, write: Write) -> None:
    """A replica refuses, and the error names the node and the way out."""
    message = await refused(db, write)
    assert "replica-" in message
    assert "db.write" in message
    assert "WriteSession" in message


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_on_the_primary_as_fall_back(db: Router, write: Write) -> None:
    """A read that lands on the primary is as read-only as on a replica."""
    assert "on primary" in await refused(db, write, primary=True)
    assert "on primary" in await refused(db, write, primary=True, snapshot=True)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_with_no_replicas(cluster: Cluster, write: Write) -> None:
    """Development without replicas meets the same error as production."""
    async with Router(cluster.primary.url) as db:
        await refused(db, write)


async def test_the_naive_read_dependency_writes(cluster: Cluster) -> None:
    """Without the fence the same write goes through on the primary: what the tests above would miss."""
    async with Router(cluster.primary.url) as db, db.write() as session:
        await WRITES["text"](session)
        assert len((await session.scalars(select(Item).where(Item.name == "forbidden"))).all()) == 1


async def test_a_promoted_replica_still_refuses_writes_of_read_sessions(cluster: Cluster) -> None:
    """The fence holds between a promotion and its discovery: pooled connections refuse, and new ones."""
    async with Cluster(replicas=1) as own:
        await own.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
        await own.caught_up()
        slow = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120)
        async with Router(own.primary.url, [own.replicas[0].url], policy=slow, pool_size=2) as db:
            await in_rotation(db, "replica-1")
            async with db.read() as session:
                assert await session.scalar(text("SELECT pg_is_in_recovery()"))
            await own.promote("replica-1")
            for _ in range(2):
                async with db.read() as one, db.read() as two:
                    for session in (one, two):
                        assert session.info["lagwise.route"].node == "replica-1"
                        with pytest.raises(ReadOnly):
                            await session.execute(text("INSERT INTO item (name) VALUES ('forbidden')"))
            assert await own["replica-1"].fetchval("SELECT count(*) FROM item") == 0


async def test_cursors_and_savepoints_ask_for_a_transaction(db: Router) -> None:
    """A plain read has no transaction; a savepoint or a cursor begins one, and it is READ ONLY."""
    async with db.read() as session:
        await session.execute(select(Item).limit(1))
        async with session.begin_nested():
            await session.execute(select(Item).limit(1))
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"
    async with db.read(snapshot=True) as session, session.begin_nested():
        await session.execute(select(Item).limit(1))
    async with db.read() as session:
        stream = await session.stream(select(Item.id).limit(3))
        assert len([row async for row in stream]) <= 3


async def test_a_snapshot_is_one_snapshot(db: Router, cluster: Cluster) -> None:
    """Both statements of a snapshot session see the same rows, though a write replays in between."""

    async def count(session: AsyncSession) -> int:
        return len((await session.scalars(select(Item.id))).all())

    async with db.read(snapshot=True) as snapshot, db.read() as plain:
        before = (await count(snapshot), await count(plain))
        async with db.write.begin() as session:
            session.add(Item(name="in between"))
        await cluster.caught_up()
        assert (before[0], before[1] + 1) == (await count(snapshot), await count(plain))
