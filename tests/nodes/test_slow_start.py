"""A process that starts while its machine, or its servers, are slow: it waits for a first answer, and not for ever."""

import asyncio
from math import isfinite

import pytest
from sqlalchemy import text

from lagwise import NoPrimary, Policy
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import router

WRITE = text("INSERT INTO item (name) VALUES ('at the start')")
LONG = 60.0  # seconds; far above what any of this takes


async def test_it_opens_when_the_first_node_answers(cluster: Cluster) -> None:
    """Three probes of each node fail, and the first write finds its primary all the same."""
    for node in cluster.nodes:
        await cluster.black_hole(node)
    db = router(cluster, Policy(probe_timeout=0.2, connect_timeout=LONG))
    opening = asyncio.create_task(db.__aenter__())
    failed: set[tuple[str, float]] = set()

    def each_three_times() -> bool:
        watches = db._nodes._monitor._watches if db._nodes._monitor is not None else {}
        failed.update((name, watch.tried_at) for name, watch in watches.items() if isfinite(watch.tried_at))
        return all(sum(name == node for node, _ in failed) >= 3 for name in cluster.nodes)

    try:
        await wait_until(each_three_times, what="each node has been asked three times")
        assert not opening.done()
        await cluster.heal()
        async with asyncio.timeout(LONG / 2):
            await opening
        async with db.write.begin() as session:
            await session.execute(WRITE)
    finally:
        await opening
        await db.__aexit__(None, None, None)


async def test_it_opens_without_an_answer_in_the_end(cluster: Cluster) -> None:
    """No node ever answers: it opens after `connect_timeout`, and a write says that there is no primary."""
    for node in cluster.nodes:
        await cluster.black_hole(node)
    async with asyncio.timeout(LONG):
        async with router(cluster, Policy(probe_timeout=0.2, connect_timeout=1, close_timeout=1)) as db:
            with pytest.raises(NoPrimary, match="silent"):
                async with db.write.begin() as session:
                    await session.execute(WRITE)


async def test_a_refusal_is_not_waited_for(cluster: Cluster) -> None:
    """Every node refuses connections: that is an answer, and the Router opens at once."""
    for node in cluster.nodes:
        await cluster.cut(node)
    async with asyncio.timeout(LONG / 2), router(cluster, Policy(connect_timeout=LONG)) as db:
        assert db.view.primary is None


async def test_one_answer_is_enough(cluster: Cluster) -> None:
    """A replica answers, and the primary's host is gone: the Router opens at once, and serves reads."""
    await cluster.black_hole("primary")
    async with asyncio.timeout(LONG / 2), router(cluster, Policy(connect_timeout=LONG)) as db, db.read() as session:
        assert await session.scalar(text("SELECT pg_is_in_recovery()"))
