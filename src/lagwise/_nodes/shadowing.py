"""Follows reads that are held back: what replicas would have done for them, without keeping them waiting."""

import asyncio

from lagwise._decide.node import Node
from lagwise._decide.route import Demand, Route, route
from lagwise._decide.shadow import HeldBack, Shadow, lacked, lacking
from lagwise._nodes.choose import choose
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.waiting import Wait
from lagwise._nodes.watchers import Watchers
from lagwise.errors import RoutingError
from lagwise.policy import Policy

_MOST = 256  # reads that are followed at a time, each for `catch_up` or a probe at most


class Shadowing:
    """Counts, for reads that the primary serves, what would have become of them.

    Most are judged from memory. A read that would have waited is followed by a task that waits in its place: in the
    function that reads wait in, and so with the readings that the read would have had. So is one whose client has seen
    more than some replica had replayed when it was last read: the next reading tells more. What replicas are asked
    meanwhile is the monitor's short question, at the rates that bound it for reads that wait.
    """

    def __init__(self, policy: Policy, watchers: Watchers) -> None:
        self.counts = Shadow()
        self._policy = policy
        self._watchers = watchers
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, monitor: Monitor, demand: Demand) -> None:
        """Find out what would become of a read with this demand that opens now; the read does not wait for it."""
        view, now = monitor.view, monitor.clock()
        would = route(view, self._policy, demand, now)
        behind = lacking(view, demand)
        if not behind and not would.reason.may_improve and would.node is not None:
            self._count(would, 0.0, waited=False)
        elif len(self._tasks) >= _MOST:
            self.counts = self.counts.passing_over()
        else:
            task = asyncio.create_task(self._judge(monitor, demand, would, behind, now), name="lagwise-shadow")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Follow no read any longer."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _judge(
        self, monitor: Monitor, demand: Demand, would: Route, behind: list[tuple[Node, float]], now: float
    ) -> None:
        waited = would.reason.may_improve and self._policy.catch_up > 0
        for node, _ in behind:
            monitor.expect(node.name)
        if not would.on_replica:
            would = await _chosen(monitor, self._policy, demand, would)
        stale = 0.0
        deadline = now + self._policy.probe_interval + self._policy.probe_timeout
        for node, share in behind:
            after = await monitor.soon(node.name, now, deadline)
            if after is not None and node.reading is not None:
                stale += share * lacked(node.reading, after, demand.timeline, demand.floor, now)
        self._count(would, stale, waited=waited)

    def _count(self, would: Route, stale: float, *, waited: bool) -> None:
        self.counts = self.counts.counting(would, stale, waited=waited)
        if (tell := self._watchers.told) is not None:
            tell(HeldBack(would=would, waited=waited, stale=stale))


async def _chosen(monitor: Monitor, policy: Policy, demand: Demand, at_once: Route) -> Route:
    """Where the read would have gone in the end."""
    try:
        return await choose(monitor, policy, lambda _: demand, Wait(monitor.clock))
    except RoutingError:
        return Route(None, at_once.reason)
