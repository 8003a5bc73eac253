"""Connections without a session, cancelled: nobody leaves one behind, and nobody wrote unmarked."""

import asyncio
import random

from lagwise import Causality, Policy
from lagwise.testing import Cluster, wait_until
from tests.kit.connections import KINDS, reading, write
from tests.kit.load import patience
from tests.kit.numbers import enough
from tests.kit.routers import busy, in_rotation, no_query_runs, router

CANCELLED = enough(300, 600)


async def test_hundreds_of_cancelled_uses(cluster: Cluster) -> None:
    """Cancelled at random moments, once or twice: every connection is given back, and nobody wrote unmarked."""
    policy = Policy(max_lag=60, sticky_window=60, probe_timeout=5)
    dice = random.Random(22)
    async with router(cluster, policy, pool_size=10) as db:
        await in_rotation(db, "replica-1", "replica-2")

        async def read(kind: str) -> None:
            async with reading(db, kind, snapshot=dice.random() < 0.3, primary=dice.random() < 0.2) as ask:
                mine = dice.randrange(1000)
                assert await ask("SELECT $1::int", mine) == mine
                await ask(dice.choice(["SET application_name = 'touched'", "SELECT 1", "SELECT pg_sleep(0.005)"]))

        async def use(number: int) -> tuple[str, Causality, bool]:
            name = f"cut {number}"
            with Causality() as seen:
                task = asyncio.create_task(read(KINDS[number % 3]) if number % 3 < 2 else write(db, name))
                for _ in range(dice.randrange(60)):
                    await asyncio.sleep(0)
                if dice.random() < 0.5:
                    await asyncio.wait((task,), timeout=patience(dice))
                finished = not task.cancel()
                if dice.random() < 0.5:
                    await asyncio.sleep(0)
                    task.cancel()
                await asyncio.wait((task,))
                assert task.cancelled() or task.exception() is None, task
                return name, seen, finished

        turns = iter(range(CANCELLED))
        uses: list[tuple[str, Causality, bool]] = []

        async def keep_going() -> None:
            uses.extend([await use(turn) for turn in turns])

        await asyncio.gather(*(keep_going() for _ in range(20)))
        assert 0 < sum(done for _, _, done in uses) < CANCELLED == len(uses)
        await wait_until(lambda: busy(db) == 0, what="every connection to be given back")
        there = set(await cluster.primary.fetchval("SELECT array_agg(name) FROM item WHERE name LIKE 'cut %'") or [])
        assert {name for name, seen, _ in uses if name in there and not seen.grew} == set()
        await wait_until(lambda: no_query_runs(cluster), what="the servers to agree")
