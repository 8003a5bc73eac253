"""Routers on a real cluster, the policies that tests need, and what is asked of both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lagwise import Policy, Router
from lagwise._decide.catalog import UNREAD
from lagwise._pools.counters import checked_out
from lagwise.testing import Cluster, wait_until

# Long enough that no replica leaves the rotation while its replay stands still; no read waits for one.
PATIENT = Policy(max_lag=60, sticky_window=60, catch_up=0, probe_timeout=5)
# Probes when it opens, and then only when a session needs it.
LONG = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120)
QUIET = Policy(max_lag=600, sticky_window=600, probe_interval=300, catch_up=0, probe_timeout=5)
# Notices a fault soon, with no time-out configured by the application.
QUICK = Policy(max_lag=2.0, sticky_window=2.0, probe_interval=0.1, probe_timeout=0.3, abort_after=1.0)
# How often a counted use is repeated.
MANY = 20


def router(cluster: Cluster, policy: Policy | None = None, **options: Any) -> Router:
    """A Router on the whole cluster, by the names the nodes were born with."""
    primary, *replicas = cluster.nodes.values()
    return Router(primary.url, {node.name: node.url for node in replicas}, policy=policy, **options)


def steady(cluster: Cluster, **options: Any) -> Router:
    """A Router with the defaults, but for patience with a busy machine."""
    return router(cluster, Policy(probe_timeout=5), **options)


def patient(cluster: Cluster, **options: Any) -> Router:
    """A Router that does not mind replicas standing still, and never waits for them."""
    return router(cluster, PATIENT, **options)


@asynccontextmanager
async def quiet(cluster: Cluster) -> AsyncIterator[Router]:
    """An open Router that has asked its nodes what it asks when it opens, and asks again only when it must."""
    async with router(cluster, LONG, pool_size=2) as db:
        await catalog_read(db)
        yield db


async def catalog_read(db: Router) -> None:
    """Wait until the monitor has asked for the catalog, which is the last of what it asks when it opens."""
    await wait_until(lambda: db._nodes.monitor.catalog is not UNREAD, what="the catalog is read")


async def in_rotation(db: Router, *names: str, timeout: float = 10) -> None:
    """Wait until exactly these replicas are in rotation, and fresh."""

    def so() -> bool:
        if db.policy.probe_interval > 1:  # the one reading there is may have been taken a moment too early
            db._nodes.monitor.hurry(names)
        now = asyncio.get_running_loop().time()
        return {node.name for node in db.view.rotation if node.staleness(now) < db.policy.max_lag} == set(names)

    await wait_until(so, what=f"{names} in rotation", timeout=timeout)


async def both_in_rotation(db: Router) -> None:
    """Wait until both replicas serve, and the primary is seen."""
    await in_rotation(db, "replica-1", "replica-2")
    await wait_until(lambda: db.view.primary is not None, what="the primary is seen")


async def stand_still(cluster: Cluster) -> None:
    """Let every replica show what there is now and nothing that comes."""
    await cluster.caught_up()
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)


async def let_go(cluster: Cluster, db: Router) -> None:
    """Let every replica catch up, and the Router hear of it."""
    for replica in cluster.replicas:
        await cluster.resume_replay(replica)
    await cluster.caught_up()
    head = await cluster.primary.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")

    def heard() -> bool:
        return len(db.view.rotation) == 2 and all(n.reading and n.reading.lsn >= head for n in db.view.rotation)

    await wait_until(heard, what="the Router knows that both have caught up")


def trips(cluster: Cluster) -> int:
    """The round trips of all nodes so far, whoever made them."""
    return sum(node.proxy.round_trips for node in cluster.nodes.values())


async def nothing_is_asked(cluster: Cluster) -> None:
    """Wait until no node has been asked anything for half a second: what Routers do when they open is over."""
    latest = -1

    def same() -> bool:
        nonlocal latest
        before, latest = latest, trips(cluster)
        return before == latest

    await wait_until(same, interval=0.5, what="no node is asked any more")


def busy(db: Router) -> int:
    """Connections checked out, of all pools of all nodes."""
    return sum(
        checked_out(engine.sync_engine.pool) for pools in db.pools.values() for engine in pools.in_use().values()
    )


async def no_query_runs(cluster: Cluster, like: str = "%") -> bool:
    """Whether no server has a transaction or a query of ours open whose latest statement is like this one."""
    query = """SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
               AND pid <> pg_backend_pid() AND state <> 'idle' AND query LIKE $1"""
    return [0] * len(cluster.nodes) == [await node.fetchval(query, like) for node in cluster.nodes.values()]
