"""Whoever is cancelled, at whatever point, leaves no connection behind and no client half marked."""

import asyncio
import random
from dataclasses import replace

from sqlalchemy import text

from lagwise import Causality, Policy, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.load import patience
from tests.kit.numbers import enough
from tests.kit.routers import busy, in_rotation, no_query_runs, router

CANCELLED = enough(600, 2000)


async def test_hundreds_of_cancelled_requests(cluster: Cluster) -> None:
    """Cancelled at random moments of opening, reading, writing, committing and closing: nothing stays checked out."""
    policy = Policy(max_lag=60, sticky_window=60, probe_timeout=5)
    dice = random.Random(20)
    async with router(cluster, policy, pool_size=10) as db:
        await in_rotation(db, "replica-1", "replica-2")

        async def read() -> None:
            async with db.read(snapshot=dice.random() < 0.2) as session:
                await session.execute(text("SELECT count(*) FROM item"))
                await session.execute(text("SET application_name = 'touched'" if dice.random() < 0.2 else "SELECT 1"))

        async def write(name: str) -> None:
            async with db.write.begin() as session:
                session.add(Item(name=name))

        async def request(number: int) -> tuple[str, Causality, bool]:
            """One client's request, cancelled after a random number of turns of the loop."""
            name = f"cancelled {number}"
            with Causality() as seen:
                task = asyncio.create_task(read() if number % 2 else write(name))
                for _ in range(dice.randrange(60)):
                    await asyncio.sleep(0)
                if dice.random() < 0.5:  # let it meet the network at least once
                    await asyncio.wait((task,), timeout=patience(dice))
                finished = not task.cancel()
                await asyncio.wait((task,))
                return name, seen, finished

        turns = iter(range(CANCELLED))
        clients: list[tuple[str, Causality, bool]] = []

        async def keep_going() -> None:
            clients.extend([await request(turn) for turn in turns])

        await asyncio.gather(*(keep_going() for _ in range(20)))
        assert len(clients) == CANCELLED
        finished = sum(done for _, _, done in clients)
        assert 0 < finished < CANCELLED, "some were cancelled and some were not"
        await wait_until(lambda: busy(db) == 0, what="every connection to be given back")

        # Whoever's row is there has a token that says so; whoever has none wrote nothing.
        written = set(await cluster.primary.fetchval("SELECT array_agg(name) FROM item WHERE name LIKE 'cancelled %'"))
        unmarked = {name for name, seen, _ in clients if name in written and not seen.grew}
        assert unmarked == set()

        await wait_until(lambda: no_query_runs(cluster), what="the servers to agree")


async def test_a_session_that_is_cancelled_while_it_ends_keeps_no_connection(cluster: Cluster, quick: Router) -> None:
    """Closed outside of a block, under guarantee="session", while it asks a silent node what it has shown."""
    policy = replace(quick.policy, guarantee="session")
    async with router(cluster, policy) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality():
            session = db.read(snapshot=True)
            await (await session.connection()).execute(text("SELECT count(*) FROM item"))
            (node,) = [name for name, pools in db.pools.items() if pools.load()]
            await cluster.black_hole(node)
            try:
                closing = asyncio.create_task(session.close())
                await wait_until(lambda: len(db._nodes.monitor._watches[node].tried), what="it asks")
                closing.cancel()
                await asyncio.wait({closing})
                assert closing.cancelled()
                await wait_until(lambda: busy(db) == 0, what="its connection is in no use")
            finally:
                await cluster.heal()
            del session  # until here it could be used
