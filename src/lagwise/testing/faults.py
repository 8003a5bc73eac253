"""The faults of a schedule: what each does to a cluster, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import asyncpg  # type: ignore[import-untyped]

from lagwise.testing.cluster import Cluster
from lagwise.testing.gates import wait_until
from lagwise.testing.node import Node
from lagwise.testing.replication import streams

Fault = Literal[
    "delay", "pause", "kill", "restart", "cut", "black-hole", "freeze", "slow", "partition", "terminate",
    "promote", "failover", "undone", "full", "stranger", "busy", "stop",
]  # fmt: skip
CHANGES: frozenset[Fault] = frozenset({"promote", "failover", "undone"})
_FOLLOWS = 2.0  # seconds after which a replica that does not stream is taken to be past the fork
_MOST = 1000  # connections


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: `at` seconds from the start, for `lasts` seconds, then healed.

    `amount` is seconds too: of apply delay, or of latency. A promotion's node is the one that is promoted. The
    fault ends when the other nodes follow it again: the old primary is left alive by "promote" for `lasts`, killed
    by "failover" and started again, still believing to be the primary, half-way. After "undone" it leads again, and
    what was promoted is its replica as before.

    The cluster does not cause three faults: another cluster's server stands in the node's place ("stranger"), and the
    process called `node` computes and answers no request ("busy"), or is stopped by a signal ("stop").
    """

    at: float
    fault: Fault
    node: str
    lasts: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" by {self.amount:g} s" if self.amount else ""
        return f"{self.at:6.2f} s  {self.fault} {self.node}{amount}" + (f" for {self.lasts:g} s" if self.lasts else "")


@asynccontextmanager
async def suffering(step: Step, cluster: Cluster) -> AsyncIterator[None]:
    """The fault, and its end: also when the schedule is cancelled."""
    if step.fault == "full":
        async with _full(cluster[step.node]):
            yield
        return
    begin, end = _DOING[step.fault]
    await begin(cluster, step)
    try:
        yield
    finally:
        await end(cluster, step)


async def _now(verb: Callable[[], object] = lambda: None) -> None:
    verb()


async def _hold_back(cluster: Cluster, step: Step, seconds: float) -> None:
    cluster[step.node].proxy.latency = seconds


_Doing = Callable[[Cluster, Step], Awaitable[object]]
# The network is mended with the proxy's own verb: cluster.heal would end a partition too.
_DOING: dict[Fault, tuple[_Doing, _Doing]] = {
    "delay": (lambda c, s: c.set_apply_delay(s.node, s.amount), lambda c, s: c.set_apply_delay(s.node, 0)),
    "pause": (lambda c, s: c.pause_replay(s.node), lambda c, s: c.resume_replay(s.node)),
    "partition": (lambda c, s: c.partition(s.node), lambda c, s: _now(c[s.node].link.heal)),
    "kill": (lambda c, s: c.kill(s.node), lambda c, s: c.start(s.node)),
    "restart": (lambda c, s: c.restart(s.node), lambda _c, _s: _now()),
    "terminate": (lambda c, s: c.terminate_backends(s.node), lambda _c, _s: _now()),
    "cut": (lambda c, s: c.cut(s.node), lambda c, s: _now(c[s.node].proxy.heal)),
    "black-hole": (lambda c, s: c.black_hole(s.node), lambda c, s: _now(c[s.node].proxy.heal)),
    "freeze": (lambda c, s: _now(c[s.node].proxy.freeze), lambda c, s: _now(c[s.node].proxy.heal)),
    "slow": (lambda c, s: _hold_back(c, s, s.amount), lambda c, s: _hold_back(c, s, 0)),
}


@asynccontextmanager
async def _full(node: Node) -> AsyncIterator[None]:
    """Every connection that the server has to give is taken, and the monitors of all Routers have lost theirs."""
    async with AsyncExitStack() as taken:
        own = await taken.enter_async_context(node.connect())
        await _take_all(node, taken)
        node.proxy.refuse()  # else a monitor is back before its place is taken
        try:
            await own.execute(_END_MONITORS)
            await _take_all(node, taken)
        finally:
            node.proxy.heal()
        yield


async def _take_all(node: Node, taken: AsyncExitStack) -> None:
    with suppress(asyncpg.TooManyConnectionsError):
        for _ in range(_MOST):
            await taken.enter_async_context(node.connect())


# Told by what it asks.
_END_MONITORS = """
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%pg_control_system%'
"""


async def change(step: Step, cluster: Cluster) -> None:
    """Another primary: first the others are left where they are, then they follow, by rewinding if need be."""
    old, new = cluster.primary, cluster[step.node]
    if step.fault == "undone":
        # In order, so that the replica has all there is: what is written on it is lost when it is turned back, and
        # that alone. A server that stops sends the rest to those that stream, and to no other.
        await streams(new, timeout=30)
        await cluster.stop(old)
        await cluster.promote(new)
        await asyncio.sleep(step.lasts)
        await cluster.stop(new)
        await cluster.start(old)
        await cluster.rejoin(new, of=old)
        return
    if step.fault == "failover":
        await cluster.kill(old)
    await cluster.promote(new)
    await asyncio.sleep(step.lasts / 2)
    if step.fault == "failover":
        await cluster.start(old)
    await asyncio.sleep(step.lasts / 2)
    for node in [node for node in cluster.replicas if node is not old]:
        try:
            async with asyncio.timeout(_FOLLOWS):
                await cluster.follow(node)
                await wait_until(partial(_on_timeline_of, new, node), what=f"{node.name} is past the fork")
        except TimeoutError:
            await cluster.rejoin(node)
    await cluster.rejoin(old)


async def _on_timeline_of(primary: Node, replica: Node) -> bool:
    # One that is past the fork streams too, again and again, the end of the old timeline.
    timeline = await primary.fetchval(
        "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
    )
    return bool(await replica.fetchval("SELECT received_tli = $1 FROM pg_stat_wal_receiver", timeline))
