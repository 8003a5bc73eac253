"""A fault schedule: what happens to a cluster and when, as a value that can be printed, pasted and run again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Self

from lagwise.testing.cluster import Cluster
from lagwise.testing.faults import CHANGES, Fault, Step, change, suffering

__all__ = ["Fault", "Outside", "Schedule", "Step"]

Outside = Mapping[Fault, Callable[[Step], AbstractAsyncContextManager[object]]]

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
    "undone": (0, 1.0, 3.0),
    "full": (1, 0.5, 3.0),
    "stranger": (1, 0.5, 4.0),
    "busy": (1, 1.0, 2.0),
    "stop": (1, 0.5, 3.0),
}
_NETWORK = frozenset({"cut", "black-hole", "freeze", "slow"})  # between clients and a node
_BOTH = frozenset({"full", "stranger"})  # nothing else may happen to the node meanwhile
_REPLICAS = frozenset({"delay", "pause", "partition", "stranger"})  # not done to a primary
_OUTAGES = frozenset({"kill", "restart", "cut", "black-hole", "freeze", "full", "stranger"})
_OUTSIDE: frozenset[Fault] = frozenset({"stranger", "busy", "stop"})
_PROCESSES: frozenset[Fault] = frozenset({"busy", "stop"})
_MARGIN = 0.5  # seconds between two faults of one kind on one node
_REPAIR = 4.0  # seconds until all nodes follow a new primary
_BELIEF = 10.0  # seconds until what was believed of an undone promotion has given way


@dataclass(frozen=True, slots=True)
class Schedule:
    """What will happen to a cluster. `repr` is Python that makes an equal one; `str` is for people."""

    seed: int
    seconds: float
    steps: tuple[Step, ...]

    @classmethod
    def from_seed(
        cls,
        seed: int,
        seconds: float,
        *,
        nodes: tuple[str, ...] = ("primary", "replica-1", "replica-2"),
        processes: tuple[str, ...] = (),
        stranger: bool = False,
    ) -> Self:
        """The schedule of this seed for a cluster of `nodes`, the primary first.

        With the names of `processes` that use the cluster, these suffer too; with `stranger`, another cluster's
        server stands in a replica's place at times. Both need what `run` is given as `outside`.

        Faults overlap, but two of one kind do not meet on one node, some node is always up and reachable, and
        while the roles change no server is touched: acknowledged writes are lost by a failover only. Nor is a process
        stopped then and the promoted node out of reach: what sees a deposed primary alone cannot know that it is one.
        """
        draw = random.Random(seed)  # noqa: S311 - not a secret
        steps: list[Step] = []
        primaries = [(0.0, nodes[0])]
        at = draw.uniform(1, 5)
        while len(nodes) > 1 and at < seconds - 3:  # the changes of primary first: they need everyone
            node = draw.choice([node for node in nodes if node != primaries[-1][1]])
            kind: Fault = draw.choice(("promote", "failover", "undone"))
            steps.append(_step(draw, at, kind, node, seconds))
            primaries.append((at, node))
            if kind == "undone":
                primaries.append((at + steps[-1].lasts, primaries[-2][1]))
                at += _BELIEF
            at += draw.uniform(10, 20)
        able: list[Fault] = [
            fault for fault in _FAULTS if fault not in _OUTSIDE or (processes if fault in _PROCESSES else stranger)
        ]
        at = draw.uniform(0.3, 1.0)
        while at < seconds - 1:
            fault = draw.choices(able, [_FAULTS[fault][0] for fault in able])[0]
            step = _step(draw, at, fault, draw.choice(processes if fault in _PROCESSES else nodes), seconds)
            leads = step.node == next(node for since, node in reversed(primaries) if since <= at)
            fits = all(_compatible(step, other) for other in steps) and _survivable(step, steps, nodes)
            if fits and _knowable([step, *steps]) and not (leads and fault in _REPLICAS):
                steps.append(step)
                at += draw.expovariate(1 / 0.7)
            else:
                at += 0.05
        steps.sort(key=lambda step: step.at)
        return cls(seed, seconds, tuple(steps))

    async def run(
        self, cluster: Cluster, tell: Callable[[Step], None] = lambda _step: None, outside: Outside | None = None
    ) -> None:
        """Do all of it to the cluster, heal everything, and return when the cluster is whole.

        `tell` is called with each step when it begins. The schedule waits for a cluster that is slower. `outside` has,
        for each fault that the cluster does not cause, a context that lasts as long as the fault.
        """
        began, lanes = asyncio.get_running_loop().time(), dict[tuple[str, str], asyncio.Lock]()
        async with asyncio.TaskGroup() as group:
            for step in self.steps:
                locks = [
                    lanes.setdefault(lane, asyncio.Lock())
                    for lane in sorted(
                        (name, kind) for name in {*cluster.nodes, step.node} for kind in _lanes(step, name)
                    )
                ]
                group.create_task(_perform(step, cluster, began, locks, tell, outside or {}))
        await cluster.restore()

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}, {self.seconds:g} s", *(f"  {step}" for step in self.steps)])


_AMOUNTS: dict[str, tuple[float, float]] = {"delay": (0.1, 3.0), "slow": (0.01, 0.3)}


def _step(draw: random.Random, at: float, fault: Fault, node: str, seconds: float) -> Step:
    _, least, most = _FAULTS[fault]
    lasts = min(draw.uniform(least, most), seconds - at)
    return Step(round(at, 2), fault, node, round(lasts, 2), round(draw.uniform(*_AMOUNTS.get(fault, (0, 0))), 3))


def _lanes(step: Step, node: str) -> set[str]:
    """The parts of a node that a step uses alone: its server, or the clients' network to it."""
    if step.fault in CHANGES:
        return {"server"}
    if step.node != node:
        return set()
    return {"network", "server"} if step.fault in _BOTH else {"network"} if step.fault in _NETWORK else {"server"}


def _over(step: Step) -> float:
    return step.at + step.lasts + (_REPAIR if step.fault in CHANGES else _MARGIN)


def _compatible(step: Step, other: Step) -> bool:
    """Whether the two are apart in time, or in what they touch."""
    apart = step.at >= _over(other) or other.at >= _over(step)
    if apart or {step.fault, other.fault} & _PROCESSES:
        return apart or step.node != other.node
    return not any(_lanes(step, node) & _lanes(other, node) for node in {step.node, other.node})


def _survivable(step: Step, steps: list[Step], nodes: tuple[str, ...]) -> bool:
    """Whether some node stays up and reachable meanwhile."""
    out = {step.node} if step.fault in _OUTAGES else set()
    out |= {other.node for other in steps if other.fault in _OUTAGES and _over(other) > step.at}
    return len(out) < len(nodes)


def _knowable(steps: list[Step]) -> bool:
    """Whether a process that is held up through a promotion can reach the promoted node afterwards."""
    for turn in (step for step in steps if step.fault in CHANGES):
        meanwhile = [step for step in steps if step.at < _over(turn) and _over(step) > turn.at]
        held_up = any(step.fault in _PROCESSES for step in meanwhile)
        if held_up and any(step.fault in _OUTAGES and step.node == turn.node for step in meanwhile):
            return False
    return True


async def _perform(
    step: Step,
    cluster: Cluster,
    began: float,
    locks: list[asyncio.Lock],
    tell: Callable[[Step], None],
    outside: Outside,
) -> None:
    await asyncio.sleep(began + step.at - asyncio.get_running_loop().time())
    async with AsyncExitStack() as lanes:
        for lock in locks:  # in one order for everyone
            await lanes.enter_async_context(lock)
        tell(step)
        if step.fault in CHANGES:
            await change(step, cluster)
        else:
            async with outside[step.fault](step) if step.fault in outside else suffering(step, cluster):
                await asyncio.sleep(step.lasts)
