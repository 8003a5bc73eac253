"""asyncpg's own connection, lent: its commits, its methods, and what is left of it afterwards."""

import asyncio
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import select

from lagwise import Causality, NoReplica, Policy, ReadOnly, Router, RoutingError
from lagwise.testing import Cluster, wait_until
from tests.kit.connections import GONE, write
from tests.kit.routers import LONG, MANY, both_in_rotation, busy, quiet, router, trips

NAMED = "SELECT count(*) FROM item WHERE name = $1"


def doubts(seen: Causality) -> list[bool]:
    """Of each position in the token: whether it is in doubt."""
    return [position.in_doubt_at > 0 for position in seen.token]


async def test_a_write_is_three_round_trips(cluster: Cluster) -> None:
    """BEGIN, statement, and COMMIT that says where it stands; with a token and without."""
    async with quiet(cluster) as db:

        async def cost(times: int) -> int:
            before = trips(cluster)
            for _ in range(times):
                await write(db, "written")
            return trips(cluster) - before

        with Causality():
            await cost(3)
            assert await cost(MANY) == 3 * MANY
        assert await cost(MANY) == 3 * MANY


async def test_what_counts_as_a_write(cluster: Cluster, db: Router) -> None:
    """A COMMIT does; an error in the block does not, and a COMMIT that is refused is the caller's error."""
    await cluster.primary.execute("""
        CREATE TABLE IF NOT EXISTS deferred (id int PRIMARY KEY, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED)
    """)
    with Causality() as seen:
        with pytest.raises(ZeroDivisionError):
            async with db.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ('rolled back')")
                raise ZeroDivisionError
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            async with db.write.asyncpg() as connection:
                await connection.execute("INSERT INTO deferred VALUES (1, -1)")
        assert (seen.grew, str(seen.token)) == (False, "")
        async with db.write.asyncpg() as connection, connection.transaction():
            await connection.copy_records_to_table("item", records=[("copied",)], columns=["name"])
        assert doubts(seen) == [False]
    assert await cluster.primary.fetchval("SELECT count(*) FROM item WHERE name = 'rolled back'") == 0
    assert busy(db) == 0


@pytest.mark.parametrize("how", ["cancelled", "cut"])
async def test_a_commit_cut_off_is_in_doubt(cluster: Cluster, still: Router, how: str) -> None:
    """Nobody knows whether it took place: the client reads from the primary."""
    with Causality() as seen:

        async def committing() -> None:
            async with still.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ('in doubt')")
                if how == "cut":
                    await cluster.cut("primary")
                cluster.primary.proxy.latency = 5.0

        task = asyncio.create_task(committing())
        if how == "cancelled":
            await wait_until(lambda: bool(seen._pending), what="COMMIT to be sent")
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() == (how == "cancelled")
        assert task.cancelled() or isinstance(task.exception(), GONE), task
        cluster.primary.proxy.latency = 0.0
        await cluster.heal()
        assert doubts(seen) == [True]
        await wait_until(lambda: busy(still) == 0, what="the connection to be given up")
        await wait_until(lambda: still.view.primary is not None, what="the primary")
        async with still.read.asyncpg() as connection:
            assert not await connection.fetchval("SELECT pg_is_in_recovery()")


@pytest.mark.parametrize("ends", ["well", "badly"])
async def test_a_commit_by_hand_is_no_secret(still: Router, ends: str) -> None:
    """Whoever ends the transaction inside the block has written: the client's reads know, however the block ends."""
    with Causality() as seen:
        try:
            async with still.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ($1)", f"by hand {ends}")
                await connection.execute("COMMIT")
                async with still.read.asyncpg() as reading:
                    assert await reading.fetchval(NAMED, f"by hand {ends}") == 1
                if ends == "badly":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert doubts(seen) == [ends == "badly"]
        async with still.read.asyncpg() as reading:
            assert await reading.fetchval(NAMED, f"by hand {ends}") == 1


async def test_writing_inside_a_read(still: Router) -> None:
    """One client, a write in the middle of a read of its own: the read goes on where the write is."""
    with Causality():
        async with still.read.asyncpg() as reading:
            assert await reading.fetchval(NAMED, "nested") == 0
            async with still.write.asyncpg() as writing:
                await writing.execute("INSERT INTO item (name) VALUES ('nested')")
                assert await reading.fetchval(NAMED, "nested") == 0  # not committed yet
            assert await reading.fetchval(NAMED, "nested") == 1


async def read_by(how: str, connection: Any, name: str) -> int:
    """A count, by other methods than fetch."""
    if how == "prepare":
        return int(await (await connection.prepare(NAMED)).fetchval(name))
    if how == "transaction":
        async with connection.transaction():
            return int(await connection.fetchval(NAMED, name))
    if how == "cursor":
        async with connection.transaction():
            return sum([int(row[0]) async for row in connection.cursor(NAMED, name)])
    heard: list[bytes] = []

    async def hear(data: bytes) -> None:
        heard.append(data)

    await connection.copy_from_query(NAMED, name, output=hear)
    return int(b"".join(heard))


METHODS = ["prepare", "transaction", "cursor", "copy"]


@pytest.mark.parametrize("how", METHODS)
async def test_every_way_to_read_has_the_clients_write(still: Router, how: str) -> None:
    """Opened before the write: what the driver offers beside fetch is begun where the write is, or says it cannot."""
    with Causality():
        async with still.read.asyncpg() as connection:
            await write(still, f"by {how}")
            assert await read_by(how, connection, f"by {how}") == 1
        async with still.read.asyncpg() as connection:
            async with connection.transaction():
                pass
            statement = await connection.prepare(NAMED)
            await write(still, f"again by {how}")
            assert await statement.fetchval("nobody") == 0
            if (Causality.current() or Causality()).routes[-1].node != "primary":
                with pytest.raises(NoReplica):
                    await read_by(how, connection, f"again by {how}")
    assert busy(still) == 0


async def test_held_it_says_that_it_cannot_move(still: Router) -> None:
    """A transaction of the caller's own, or a prepared statement: `NoReplica`, and what to do."""
    with Causality():
        async with still.read.asyncpg() as connection:
            async with connection.transaction():
                await write(still, "amid a transaction")
                for how in METHODS:
                    with pytest.raises(NoReplica, match=r"db\.read\(primary=True\)"):
                        await read_by(how, connection, "amid a transaction")
            assert await connection.fetchval(NAMED, "amid a transaction") == 1  # it is over
    with Causality():
        async with still.read.asyncpg() as connection:
            await connection.prepare(NAMED)
            await write(still, "after a prepare")
            with pytest.raises(NoReplica):
                await connection.fetchval(NAMED, "after a prepare")


async def test_every_way_to_read_is_remembered(cluster: Cluster) -> None:
    """guarantee="session": also what came by a prepared statement, a cursor or COPY."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, guarantee="session", probe_timeout=5)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        for how in METHODS:
            with Causality() as seen:
                async with db.read.asyncpg() as connection:
                    await read_by(how, connection, "remembered")
                assert seen.grew, how


async def test_every_way_to_write_is_refused(db: Router) -> None:
    """`ReadOnly` from every method of the driver that runs something."""
    async with db.read.asyncpg() as connection:
        with pytest.raises(ReadOnly):
            await connection.executemany("INSERT INTO item (name) VALUES ($1)", [("forbidden",)])
        with pytest.raises(ReadOnly):
            await connection.copy_records_to_table("item", records=[("forbidden",)], columns=["name"])


async def test_what_cannot_be_undone_closes_the_connection(cluster: Cluster) -> None:
    """Codecs and listeners live in the driver: the next user has another connection, without them."""
    async with Router(cluster.primary.url, policy=LONG, pool_size=1) as db:
        for opening in (db.read.asyncpg, db.write.asyncpg):
            async with opening() as connection:
                await connection.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda _: "mine")
                assert await connection.fetchval("SELECT 1") == "mine"
                pid = connection.get_server_pid()
            async with opening() as connection:
                assert await connection.fetchval("SELECT 1") == 1
                assert await connection.fetchval("SELECT pg_backend_pid()") != pid
        async with db.read.asyncpg() as connection, connection.transaction():
            pid = connection.get_server_pid()
            await (await connection.prepare("SELECT 1")).fetch()
        async with db.read.asyncpg() as connection, connection.transaction():
            assert connection.get_server_pid() == pid  # these are undone


async def test_listening_says_that_it_would_never_hear(db: Router) -> None:
    """LISTEN takes effect at COMMIT, when the connection goes back: an error that leads to one of your own."""
    for opening in (db.read.asyncpg, db.write.asyncpg):
        async with opening() as connection:
            with pytest.raises(RoutingError, match=r"asyncpg\.connect\(\)"):
                await connection.add_listener("news", print)


async def test_nothing_works_after_the_block(cluster: Cluster) -> None:
    """The connection is somebody else's by then: a clear error, also from what was made with it."""
    async with Router(cluster.primary.url, policy=LONG, pool_size=1) as db:
        async with db.read.asyncpg() as connection:
            statement = await connection.prepare("SELECT 1")
            transaction = connection.transaction()
            await transaction.start()
        async with db.read.asyncpg() as other:
            assert await other.fetchval("SELECT 2") == 2
            with pytest.raises(asyncpg.InterfaceError, match="its block ended"):
                await connection.fetch("SELECT 1")
            for late in (statement.fetch, transaction.commit):
                with pytest.raises(asyncpg.InterfaceError, match="released back"):
                    await late()
        async with db.read() as session:
            assert await session.scalar(select(1)) == 1


async def test_two_at_once_on_one_connection(db: Router) -> None:
    """The driver's own error for the second; the first is answered, and nothing is lost."""
    async with db.read.asyncpg() as connection:
        found = await asyncio.gather(*(connection.fetchval("SELECT 1") for _ in range(2)), return_exceptions=True)
        assert {type(one) for one in found} == {int, asyncpg.InterfaceError}
        assert await connection.fetchval("SELECT 1") == 1
    assert busy(db) == 0
