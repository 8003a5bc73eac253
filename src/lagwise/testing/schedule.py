"""A fault schedule: what happens to a cluster and when, as a value that can be printed, pasted and run again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from lagwise.testing.cluster import Cluster
from lagwise.testing.gates import wait_until
from lagwise.testing.node import Node

Fault = Literal[
    "delay", "pause", "kill", "restart", "cut", "black-hole", "freeze", "slow", "partition", "terminate",
    "promote", "failover",
]  # fmt: skip

# How often each is drawn (changes of primary are set first), and how long it lasts: seconds, least and most.
_FAULTS: dict[Fault, tuple[float, float, float]] = {
    "delay": (2, 1.0, 5.0),
    "pause": (2, 1.0, 5.0),
    "kill": (1.5, 0.3, 3.0),
    "restart": (1, 0.0, 0.0),
    "cut": (2, 0.3, 4.0),
    "black-hole": (2, 0.5, 4.0),
    "freeze": (1, 0.1, 3.0),
    "slow": (1, 1.0, 4.0),
    "partition": (2, 1.0, 5.0),
    "terminate": (1.5, 0.0, 0.0),
    "promote": (0, 2.0, 4.0),
    "failover": (0, 2.0, 4.0),
}
_NETWORK = frozenset({"cut", "black-hole", "freeze", "slow"})  # between clients and a node
_REPLICATION = frozenset({"delay", "pause", "partition"})  # makes a replica lag
_OUTAGES = frozenset({"kill", "restart", "cut", "black-hole", "freeze"})
_CHANGES = frozenset({"promote", "failover"})
_MARGIN = 0.5  # seconds between two faults of one kind on one node
_REPAIR = 4.0  # seconds until all nodes follow a new primary
_FOLLOWS = 2.0  # seconds after which a replica that does not stream is taken to be past the fork


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: `at` seconds from the start, for `lasts` seconds, then healed.

    `amount` is seconds too: of apply delay, or of latency. A promotion's node is the one that is promoted. It is
    done with when the other nodes follow it again: the old primary is left alive by "promote" for `lasts`, killed
    by "failover" and started again, still believing to be the primary, half-way.
    """

    at: float
    fault: Fault
    node: str
    lasts: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" by {self.amount:g} s" if self.amount else ""
        return f"{self.at:6.2f} s  {self.fault} {self.node}{amount}" + (f" for {self.lasts:g} s" if self.lasts else "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """What will happen to a cluster. `repr` is Python that makes an equal one; `str` is for people."""

    seed: int
    seconds: float
    steps: tuple[Step, ...]

    @classmethod
    def from_seed(
        cls, seed: int, seconds: float, *, nodes: tuple[str, ...] = ("primary", "replica-1", "replica-2")
    ) -> Self:
        """The schedule of this seed for a cluster of `nodes`, the primary first.

        Faults overlap, but two of one kind do not meet on one node, some node is always up and reachable, and
        while the roles change no server is touched: nothing that was acknowledged is lost but by failover.
        """
        draw = random.Random(seed)  # noqa: S311 - not a secret
        steps: list[Step] = []
        primaries = [(0.0, nodes[0])]
        at = draw.uniform(1, 5)
        while len(nodes) > 1 and at < seconds - 3:  # the changes of primary first: they need everyone
            node = draw.choice([node for node in nodes if node != primaries[-1][1]])
            changes: tuple[Fault, ...] = ("promote", "failover")
            change: Fault = draw.choice(changes)
            steps.append(_step(draw, at, change, node, seconds))
            primaries.append((at, node))
            at += draw.uniform(10, 20)
        at = draw.uniform(0.3, 1.0)
        while at < seconds - 1:
            faults: list[Fault] = list(_FAULTS)
            fault: Fault = draw.choices(faults, [weight for weight, _, _ in _FAULTS.values()])[0]
            step = _step(draw, at, fault, draw.choice(nodes), seconds)
            leads = step.node == next(node for since, node in reversed(primaries) if since <= at)
            fits = all(_compatible(step, other) for other in steps) and _survivable(step, steps, nodes)
            if fits and not (leads and fault in _REPLICATION):
                steps.append(step)
                at += draw.expovariate(1 / 0.7)
            else:
                at += 0.05
        steps.sort(key=lambda step: step.at)
        return cls(seed, seconds, tuple(steps))

    async def run(self, cluster: Cluster, tell: Callable[[Step], None] = lambda _step: None) -> None:
        """Do all of it to the cluster, heal everything, and return when the cluster is whole.

        `tell` hears of each step when it begins. A cluster that is slower than the schedule is waited for.
        """
        began, lanes = asyncio.get_running_loop().time(), dict[tuple[str, str], asyncio.Lock]()
        async with asyncio.TaskGroup() as group:
            for step in self.steps:
                locks = [
                    lanes.setdefault(lane, asyncio.Lock())
                    for lane in sorted((name, kind) for name in cluster.nodes for kind in _lanes(step, name))
                ]
                group.create_task(_perform(step, cluster, began, locks, tell))
        await cluster.heal()
        await cluster.caught_up()

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}, {self.seconds:g} s", *(f"  {step}" for step in self.steps)])


_AMOUNTS: dict[str, tuple[float, float]] = {"delay": (0.1, 3.0), "slow": (0.01, 0.3)}


def _step(draw: random.Random, at: float, fault: Fault, node: str, seconds: float) -> Step:
    _, least, most = _FAULTS[fault]
    lasts = min(draw.uniform(least, most), seconds - at)
    return Step(round(at, 2), fault, node, round(lasts, 2), round(draw.uniform(*_AMOUNTS.get(fault, (0, 0))), 3))


def _lanes(step: Step, node: str) -> set[str]:
    """What of a node a step takes for itself: its server, or the clients' way to it."""
    if step.fault in _CHANGES:
        return {"server"}
    if step.node != node:
        return set()
    return {"network"} if step.fault in _NETWORK else {"server"}


def _over(step: Step) -> float:
    return step.at + step.lasts + (_REPAIR if step.fault in _CHANGES else _MARGIN)


def _compatible(step: Step, other: Step) -> bool:
    """Whether the two are apart in time, or in what they touch."""
    apart = step.at >= _over(other) or other.at >= _over(step)
    return apart or not any(_lanes(step, node) & _lanes(other, node) for node in {step.node, other.node})


def _survivable(step: Step, steps: list[Step], nodes: tuple[str, ...]) -> bool:
    """Whether some node stays up and reachable meanwhile."""
    out = {step.node} if step.fault in _OUTAGES else set()
    out |= {other.node for other in steps if other.fault in _OUTAGES and _over(other) > step.at}
    return len(out) < len(nodes)


async def _perform(
    step: Step, cluster: Cluster, began: float, locks: list[asyncio.Lock], tell: Callable[[Step], None]
) -> None:
    await asyncio.sleep(began + step.at - asyncio.get_running_loop().time())
    async with AsyncExitStack() as lanes:
        for lock in locks:  # in one order for everyone
            await lanes.enter_async_context(lock)
        tell(step)
        if step.fault in _CHANGES:
            await _change(step, cluster)
        else:
            async with _suffering(step, cluster):
                await asyncio.sleep(step.lasts)


@asynccontextmanager
async def _suffering(step: Step, cluster: Cluster) -> AsyncIterator[None]:
    """The fault, and its end: also when the schedule is cancelled."""
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


async def _change(step: Step, cluster: Cluster) -> None:
    """Another primary: first the others are left where they are, then they follow, by rewinding if need be."""
    old, new = cluster.primary, cluster[step.node]
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
