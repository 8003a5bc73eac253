"""A connection of SQLAlchemy Core's without a session: its blocks, streams and options, and how it ends."""

import gc
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, Table, select, text
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError

from lagwise import Causality, NoReplica, Policy, ReadOnly, Router, RoutingError
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.connections import write
from tests.kit.routers import LONG, busy, in_rotation, router


async def test_a_block_of_cores(still: Router) -> None:
    """Begun after the write it has it; amid it the write is out of sight, and said to be; then it goes on."""
    named = text("SELECT count(*) FROM item WHERE name = :name")
    with Causality():
        async with still.read.connect() as connection:
            await write(still, "before the block of Core")
            async with connection.begin():
                assert await connection.scalar(named, {"name": "before the block of Core"}) == 1
    with Causality():
        async with still.read.connect() as connection:
            async with connection.begin():
                assert await connection.scalar(named, {"name": "amid the block"}) == 0
                await write(still, "amid the block")
                with pytest.raises(NoReplica, match=r"db\.read\(primary=True\)"):
                    await connection.execute(named, {"name": "amid the block"})
            assert await connection.scalar(named, {"name": "amid the block"}) == 1


async def test_a_snapshot_after_its_commit_is_a_new_one(still: Router) -> None:
    """The client may end the transaction; the next one has what it wrote meanwhile."""
    named = select(Item.id).where(Item.name == "after its commit")
    with Causality():
        async with still.read.connect(snapshot=True) as connection:
            assert (await connection.scalars(named)).all() == []
            await connection.commit()
            await write(still, "after its commit")
            assert len((await connection.scalars(named)).all()) == 1


@pytest.mark.parametrize("by", ["stream", "stream_scalars", "run_sync"])
async def test_every_way_of_core_has_the_clients_write(still: Router, by: str) -> None:
    """Opened before the write; also a stream, which on a replica brings a transaction of its own."""
    named = select(Item.id).where(Item.name == f"by {by}")

    def read(connection: Connection) -> int:
        return len(connection.execute(named).all())

    async def ask(connection: Any) -> int:
        if by == "run_sync":
            return int(await connection.run_sync(read))
        async with getattr(connection, by)(named) as result:
            return len([row async for row in result])

    with Causality():
        async with still.read.connect() as connection:
            assert await ask(connection) == 0
        async with still.read.connect() as connection:
            await write(still, f"by {by}")
            assert await ask(connection) == 1
    assert busy(still) == 0


async def test_a_half_read_stream_can_be_left(db: Router) -> None:
    """Awaited instead of entered, and not read to its end: the connection goes back all the same."""
    for options in ({}, {"snapshot": True}, {"primary": True}):
        async with db.read.connect(**options) as connection:
            stream = await connection.stream(text("SELECT generate_series(1, 100000)"))
            assert (await stream.fetchone()) == (1,)
    assert busy(db) == 0


async def test_streams_and_savepoints_ask_for_a_transaction(db: Router) -> None:
    """A plain read has no transaction; a stream or a savepoint begins one, at any time, and it is READ ONLY."""
    async with db.read.connect() as connection:
        await connection.execute(select(Item.id).limit(1))
        await (await connection.stream(select(Item.id).limit(3))).all()
        assert await connection.scalar(text("SHOW transaction_read_only")) == "on"
    async with db.read.connect() as connection, connection.begin_nested():
        assert await connection.scalar(text("SHOW transaction_read_only")) == "on"
    for options in ({"snapshot": True}, {"primary": True}):
        async with db.read.connect(**options) as connection, connection.begin():
            async with connection.begin_nested():
                await connection.execute(select(Item.id).limit(1))
            with pytest.raises(ReadOnly):
                await connection.execute(text("INSERT INTO item (name) VALUES ('forbidden')"))


async def test_options_go_where_the_connection_goes(cluster: Cluster, still: Router) -> None:
    """A tenant's schema is named once, and holds after the connection moved: else it reads another's rows."""
    tenants = Table("schemata", MetaData(), schema="tenant")
    named = select(text("count(*)")).select_from(tenants)
    with Causality():
        async with still.read.connect() as connection:
            await connection.execution_options(schema_translate_map={"tenant": "information_schema"})
            assert await connection.scalar(named) > 0
            await write(still, "options")
            assert await connection.scalar(named) > 0
            assert not await connection.scalar(text("SELECT pg_is_in_recovery()"))


@pytest.mark.parametrize("option", [{"isolation_level": "AUTOCOMMIT"}, {"postgresql_readonly": False}], ids=str)
async def test_options_do_not_open_it_for_writes(db: Router, option: dict[str, Any]) -> None:
    """What would end the read-only transaction on the primary is refused by name."""
    async with db.read.connect(primary=True) as connection:
        with pytest.raises(RoutingError, match=next(iter(option))):
            await connection.execution_options(**option)
        with pytest.raises(ReadOnly):
            await connection.execute(text("INSERT INTO item (name) VALUES ('forbidden')"))


async def test_it_begins_and_ends_like_any_other(db: Router) -> None:
    """Awaited or entered, closed twice, begun twice, used before and after: as SQLAlchemy's own connections."""
    connection = db.read.connect()
    with pytest.raises(InvalidRequestError):
        await connection.execute(select(1))
    with pytest.raises(InvalidRequestError):
        connection.begin()
    await connection.close()
    assert await connection is connection
    assert await connection.scalar(select(1)) == 1
    with pytest.raises(RoutingError, match="open already"):
        await connection.start()
    await connection.close()
    await connection.aclose()
    assert connection.closed
    with pytest.raises(ResourceClosedError):
        await connection.execute(select(1))
    with pytest.raises(ValueError, match=r"db\.write\(\)"):
        db.write.connect()
    assert busy(db) == 0


async def test_a_start_that_failed_can_be_tried_again(cluster: Cluster) -> None:
    """`NoReplica` holds nothing; the same connection begins when there is one."""
    async with router(cluster, Policy(fall_back=False, probe_timeout=5)) as db:
        for replica in cluster.replicas:
            db.drain(replica.name)
        connection = db.read.connect()
        with pytest.raises(NoReplica):
            await connection.start()
        for replica in cluster.replicas:
            db.undrain(replica.name)
        await in_rotation(db, "replica-1", "replica-2")
        async with connection:
            assert await connection.scalar(text("SELECT pg_is_in_recovery()"))


@pytest.mark.filterwarnings("ignore:The garbage collector is trying:sqlalchemy.exc.SAWarning")
async def test_forgotten_it_gives_its_place_back(cluster: Cluster) -> None:
    """Nobody closed it and nobody has it: the garbage collector's warning, and a place in the pool again."""
    async with Router(cluster.primary.url, policy=LONG, pool_size=1, pool_timeout=0.1) as db:
        connection = await db.read.connect()
        await connection.execute(select(1))
        del connection
        gc.collect()
        assert busy(db) == 0
        async with db.read.connect() as connection:
            assert await connection.scalar(select(1)) == 1
