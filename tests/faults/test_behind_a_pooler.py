"""Through a PgBouncer in transaction mode the promises hold as without, with fewer server connections than clients."""

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from lagwise import Causality, Policy
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.bouncer import SERVERS, bouncer
from tests.kit.load import errors, loaded, many, patience
from tests.kit.numbers import enough
from tests.kit.routers import PATIENT, QUICK, both_in_rotation, busy, in_rotation, no_query_runs
from tests.kit.sessions import write

PAIRS = enough(200, 800)
CANCELLED = enough(200, 2000)
CLIENTS = 20
DELAY = 0.2  # seconds


async def test_no_read_misses_its_clients_write(cluster: Cluster) -> None:
    """Twenty clients on five server connections, replay late: no error, nothing stale; once caught up, on replicas."""
    for replica in cluster.replicas:
        await cluster.set_apply_delay(replica, DELAY)
    clients: list[tuple[str, Causality]] = []
    async with bouncer(cluster) as pooler, pooler.router(PATIENT, pool_size=CLIENTS) as db:
        await both_in_rotation(db)

        async def count(name: str) -> tuple[int, bool]:
            async with db.read() as session:
                found = await session.scalars(select(Item.id).where(Item.name == name))
                return len(found.all()), session.info["lagwise.route"].on_replica

        async def pair(number: int) -> int:
            name = f"pooled {number}"
            with Causality() as seen:
                async with db.write.begin() as session:
                    session.add(Item(name=name))
                clients.append((name, seen))
                return (await count(name))[0]

        results = await many(PAIRS, pair, at_once=CLIENTS)
        assert errors(results) == []
        assert set(results) == {1}
        for replica in cluster.replicas:
            await cluster.set_apply_delay(replica, 0)
        await cluster.caught_up()
        head = await cluster.primary.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        await wait_until(
            lambda: all(node.reading is not None and node.reading.lsn >= head for node in db.view.rotation),
            what="the Router knows that the replicas have caught up",
        )

        async def again(number: int) -> tuple[int, bool]:
            name, seen = clients[number]
            with Causality(str(seen.token)):
                return await count(name)

        later: list[Any] = await many(PAIRS, again, at_once=CLIENTS)
        assert errors(later) == []
        assert {found for found, _ in later} == {1}
        assert sum(on_replica for _, on_replica in later) >= 0.9 * PAIRS
        for name in pooler.urls:
            servers = await pooler.all_servers(name)
            assert len({server["pid"] for server in servers}) == SERVERS
            for server in servers:
                assert (server["fence"], server["path"], server["prepared"]) == ("off", '"$user", public', 0)


async def test_no_read_fails_when_a_replica_is_killed(doomed: Cluster) -> None:
    """PgBouncer goes on to accept clients of a dead server: reads in flight run elsewhere, and the node is left."""
    async with bouncer(doomed) as pooler, pooler.router(QUICK, pool_size=CLIENTS) as db:
        await both_in_rotation(db)

        async def read() -> int:
            async with db.read() as session:
                return int(await session.scalar(text("SELECT 1")))

        async with loaded(read, readers=10, reads=200) as results:
            await doomed.kill("replica-1")
            await wait_until(lambda: db.view.node("replica-1").reading is None, what="the dead node to be noticed")
        assert errors(results) == []
        await doomed.start("replica-1")
        await in_rotation(db, "replica-1", "replica-2")


async def test_a_replica_is_promoted(doomed: Cluster) -> None:
    """Writes fail by name meanwhile, then go to the promoted node, although PgBouncer repeats what it was in before."""
    async with bouncer(doomed) as pooler, pooler.router(QUICK, pool_size=2) as db:
        await both_in_rotation(db)
        assert await write(db, "before") == "primary"
        await doomed.caught_up()
        await doomed.kill("primary")
        with pytest.raises(SQLAlchemyError):
            await write(db, "not taken")
        await doomed.promote("replica-1")
        await wait_until(lambda: db.view.primary is not None, what="the promoted primary to be seen")
        with Causality():
            assert await write(db, "after") == "replica-1"
            async with db.read() as session:
                assert await session.scalar(text("SELECT count(*) FROM item WHERE name IN ('before', 'after')")) == 2
        assert db.view.node("replica-2").standing == "other-timeline"
        await doomed.follow("replica-2", of="replica-1")
        await in_rotation(db, "replica-2")


async def test_the_pooler_leads_elsewhere_after_a_reload(doomed: Cluster) -> None:
    """A name's server connections are another server's from one transaction to the next: its role is asked anew."""
    async with bouncer(doomed) as pooler, pooler.router(QUICK, pool_size=2) as db:
        await both_in_rotation(db)
        assert await write(db, "before") == "primary"
        await pooler.reload(primary="replica-1", **{"replica-1": "primary"})

        async def swapped() -> bool:
            return db.view.primary is not None and db.view.primary.name == "replica-1"

        with Causality() as seen:
            for number in range(20):  # NoPrimary until it is seen, and nothing is written to a replica
                try:
                    assert await write(db, f"moved {number}") == "replica-1"
                except SQLAlchemyError:
                    await asyncio.sleep(0.1)
            await wait_until(swapped, what="the new role of the name to be seen")
            assert await write(db, "moved") == "replica-1"
            assert seen.grew
            async with db.read() as session:
                assert await session.scalar(text("SELECT count(*) FROM item WHERE name = 'moved'")) == 1


async def test_cancelled_sessions_leave_nothing(cluster: Cluster) -> None:
    """Cancelled anywhere: no transaction stays open, no connection checked out, and no client misses its write."""
    policy = Policy(max_lag=60, sticky_window=60, probe_timeout=5)
    dice = random.Random(7)
    async with bouncer(cluster) as pooler, pooler.router(policy, pool_size=10) as db:
        await both_in_rotation(db)

        async def use(number: int) -> None:
            if number % 3 == 0:
                async with db.write.begin() as session:
                    session.add(Item(name=f"cut off {number}"))
            elif number % 3 == 1:
                async with db.read(snapshot=dice.random() < 0.3) as session:
                    await session.execute(text("SELECT count(*) FROM item"))
            else:
                async with db.read.asyncpg() as driver:
                    await driver.fetchval("SELECT count(*) FROM item WHERE name = $1", "x")

        async def request(number: int) -> tuple[str, Causality]:
            with Causality() as seen:
                task = asyncio.create_task(use(number))
                for _ in range(dice.randrange(60)):
                    await asyncio.sleep(0)
                if dice.random() < 0.5:
                    await asyncio.wait((task,), timeout=patience(dice))
                task.cancel()
                await asyncio.wait((task,))
                return f"cut off {number}", seen

        results: list[Any] = await many(CANCELLED, request, at_once=CLIENTS)
        assert errors(results) == []
        await wait_until(lambda: busy(db) == 0, what="every connection to be given back")
        rows = await cluster.primary.fetch("SELECT name FROM item WHERE name LIKE 'cut off %'")
        written = {row["name"] for row in rows}
        assert {name for name, seen in results if name in written and not seen.grew} == set()

        async def idle() -> bool:
            return await no_query_runs(cluster)

        await wait_until(idle, what="no transaction open on any server")
        for name in pooler.urls:
            assert {server["settings"] for server in await pooler.all_servers(name)} == {""}
