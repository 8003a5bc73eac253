"""Shadow mode, over replicas that lag: what it predicts is what happens when the share becomes 1."""

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from lagwise import Causality, Policy, Router
from lagwise._nodes import shadowing
from lagwise.testing import Cluster
from tests.kit.http import insert, names
from tests.kit.numbers import enough
from tests.kit.routers import both_in_rotation, router, stand_still

log = logging.getLogger(__name__)

CLIENTS, WRITES, READS, ROUNDS = 20, enough(1, 3), 4, enough(3, 6)
PAUSE = 0.12  # seconds on average between two reads of a client
POLICY = Policy(probe_timeout=5)

_names = itertools.count()

Write = Callable[[str], Awaitable[None]]
Read = Callable[[str], Awaitable[tuple[bool, bool]]]


@dataclass
class Tally:
    """What the clients saw: reads, those of replicas, those that missed the client's own latest write."""

    reads: int = 0
    on_replicas: int = 0
    stale: int = 0


async def drive(write: Write, read: Read, tally: Tally) -> None:
    """The same clients each time, who write, and read what they have written at the same moments afterwards.

    A read does not begin later because the one before it waits: what is compared is the same load.
    """

    async def look(name: str, after: float) -> None:
        await asyncio.sleep(after)
        found, on_replica = await read(name)
        tally.reads += 1
        tally.on_replicas += on_replica
        tally.stale += not found

    async def one(number: int) -> None:
        dice = random.Random(number)
        with Causality():
            await asyncio.sleep(dice.random() / 3)
            for turn in range(WRITES):
                name = f"shadow {number} {turn} {next(_names)}"
                await write(name)
                moments = itertools.accumulate(dice.expovariate(1 / PAUSE) for _ in range(READS))
                await asyncio.gather(*(look(name, after) for after in moments))

    await asyncio.gather(*map(one, range(CLIENTS)))


def reading(db: Router) -> Read:
    """Reads through lagwise."""

    async def read(name: str) -> tuple[bool, bool]:
        async with db.read() as session:
            found = await names(session, name) == 1
        return found, session.info["lagwise.route"].on_replica

    return read


async def routed(db: Router, tally: Tally) -> None:
    """The load through lagwise."""

    async def write(name: str) -> None:
        async with db.write.begin() as session:
            await insert(session, name)

    await drive(write, reading(db), tally)


@asynccontextmanager
async def two_engines(cluster: Cluster) -> AsyncIterator[tuple[Write, Read]]:
    """The usual recipe: writes on the primary, reads on whichever replica is next."""
    engines = [create_async_engine(node.url, pool_size=20) for node in cluster.nodes.values()]
    writing, *reading = (async_sessionmaker(engine, expire_on_commit=False) for engine in engines)
    turns = itertools.cycle(reading)

    async def write(name: str) -> None:
        async with writing.begin() as session:
            await insert(session, name)

    async def read(name: str) -> tuple[bool, bool]:
        session: AsyncSession
        async with next(turns)() as session:
            return await names(session, name) == 1, True

    yield write, read
    for engine in engines:
        await engine.dispose()


@pytest.mark.parametrize("delays", enough([(0.5, 0.3)], [(0.5, 0.3), (0.2, 0.2), (0.4, 0.04), (1.0, 1.0)]), ids=str)
async def test_what_it_predicts_is_what_happens(cluster: Cluster, delays: tuple[float, float]) -> None:
    """The share that replicas serve within 5 points; the stale reads of a naive split within a factor of two."""
    for replica, delay in zip(cluster.replicas, delays, strict=True):
        await cluster.set_apply_delay(replica, delay)
    held_back, let_in, naive = Tally(), Tally(), Tally()
    async with router(cluster, POLICY) as db, two_engines(cluster) as (write, read):
        await both_in_rotation(db)
        for share in (0, 1):  # every pool has its connections before anything is counted
            db.offload = share
            await asyncio.gather(*(each("nothing") for each in [read, reading(db)] * 10))
        before = db.shadow
        # In turn, so that a machine that is busy for a while is busy for all three.
        for _ in range(ROUNDS):
            db.offload = 0
            await routed(db, held_back)
            db.offload = 1
            await routed(db, let_in)
            await drive(write, read, naive)
        after = db.shadow
    reads = after.reads - before.reads
    predicted = (after.on_replicas - before.on_replicas) / reads
    stale = after.naively_stale - before.naively_stale
    measured = let_in.on_replicas / let_in.reads
    log.info("%s: share %.3f predicted, %.3f measured, of %d reads", delays, predicted, measured, let_in.reads)
    log.info("%s: stale %.1f predicted, %d measured, of %d reads", delays, stale, naive.stale, naive.reads)
    log.info("%s", after)
    assert (reads, after.unjudged) == (held_back.reads, 0)
    assert (held_back.on_replicas, held_back.stale, let_in.stale) == (0, 0, 0)
    # Five points; of few reads three standard errors of a share are more.
    assert abs(predicted - measured) <= max(0.05, 3 * (0.25 / let_in.reads) ** 0.5)
    assert naive.stale / 2 <= stale <= naive.stale * 2
    assert naive.stale > naive.reads / 20


async def test_reads_that_are_followed_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a read is held back and not judged, and no share is computed over it; closing leaves no task."""
    monkeypatch.setattr(shadowing, "_MOST", 3)
    policy = Policy(offload=0, catch_up=5, probe_timeout=5, max_lag=60, sticky_window=60)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        with Causality():
            async with db.write.begin() as session:
                await insert(session, "followed")
            for _ in range(8):
                async with db.read() as session:
                    assert await names(session, "followed") == 1
                    assert session.info["lagwise.route"].reason == "held-back"
        followed = [task for task in asyncio.all_tasks() if task.get_name() == "lagwise-shadow"]
        assert (len(followed), db.shadow.reads, db.shadow.unjudged, db.shadow.share) == (3, 0, 5, 0.0)
    assert all(task.cancelled() for task in followed)
