"""Reads that wait for a replica: decided twice each, whatever the readings; probes follow a rate, not the readers."""

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Causality, Policy, Router
from lagwise._decide import route as deciding
from lagwise._nodes import choose
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.prober import Prober
from lagwise.testing import Cluster, wait_until

WAITING = Policy(max_lag=60, sticky_window=60, probe_interval=0.5, catch_up=1.0)


async def written(db: Router) -> str:
    """The token of a write that no replica replays."""
    with Causality() as seen:
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO item (name) VALUES ('x')"))
    return str(seen.token)


async def read(db: Router, token: str) -> str:
    """Which node a client with this token reads from, in the end."""
    with Causality(token):
        async with db.read() as session:
            await session.scalar(text("SELECT 1"))
            return str(session.info["lagwise.route"].node)


async def counted(db: Router, token: str, readers: int) -> tuple[Counter[str], float]:
    """Decisions, probes, readings and seconds while so many readers wait in vain."""
    counts, began = Counter[str](), asyncio.get_running_loop().time()
    route, probe, publish = deciding.route, Prober.read, Monitor._publish

    def routed(*args: Any, **options: Any) -> Any:
        counts["decisions"] += 1
        return route(*args, **options)

    async def probed(prober: Prober) -> Any:
        counts["probes"] += 1
        return await probe(prober)

    def published(monitor: Monitor, *news: Any) -> None:
        counts["readings"] += 1
        publish(monitor, *news)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "route", routed)
        patch.setattr(Prober, "read", probed)
        patch.setattr(Monitor, "_publish", published)
        nodes = await asyncio.gather(*(read(db, token) for _ in range(readers)))
    assert set(nodes) == {"primary"}
    waited = asyncio.get_running_loop().time() - began
    assert waited >= db.policy.catch_up
    return counts, waited


async def test_waiting_costs_the_same_however_many_wait(cluster: Cluster) -> None:
    """Two decisions a reader, to wait and to stop waiting; as many probes for a hundred readers as for one."""
    primary, *replicas = (node.direct_url for node in cluster.nodes.values())
    async with Router(primary, replicas, policy=WAITING) as db:
        await wait_until(lambda: db.view.fresh(monotonic() - 60) == 2, what="both replicas in rotation")
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        token = await written(db)
        await counted(db, token, 1)
        (one, waited), (hundred, longer) = await counted(db, token, 1), await counted(db, token, 100)
        assert one["decisions"] <= 3
        assert hundred["decisions"] <= 300
        assert hundred["readings"] > 10  # or this shows nothing
        assert hundred["probes"] <= 1.5 * one["probes"] * longer / waited
        monitor = db._nodes.monitor
        assert [len(queue) for queue in (monitor._floors, monitor._times, monitor._histories)] == [0, 0, 0]
        waiting = asyncio.create_task(read(db, token))
        await wait_until(lambda: len(monitor._floors) == 1, what="a reader that waits")
        for replica in cluster.replicas:
            await cluster.resume_replay(replica)
        assert await waiting != "primary"


async def test_those_who_are_cancelled_leave_nothing(cluster: Cluster) -> None:
    """A hundred requests are cancelled while they wait: the queue is empty at once."""
    primary, *replicas = (node.direct_url for node in cluster.nodes.values())
    async with Router(primary, replicas, policy=WAITING) as db:
        await wait_until(lambda: db.view.fresh(monotonic() - 60) == 2, what="both replicas in rotation")
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        token = await written(db)
        readers = [asyncio.create_task(read(db, token)) for _ in range(100)]
        monitor = db._nodes.monitor
        await wait_until(lambda: len(monitor._floors) == 100, what="all to wait")
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        assert len(monitor._floors) == 0
        for replica in cluster.replicas:
            await cluster.resume_replay(replica)
