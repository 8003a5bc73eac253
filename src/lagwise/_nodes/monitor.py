"""Reads every node, and wakes the sessions whose wait a reading ends."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from lagwise._decide.events import Watcher
from lagwise._decide.failure import Cause, Kind, cause_of
from lagwise._decide.route import Reason
from lagwise._decide.view import Reading, Role, View
from lagwise._nodes.board import Board
from lagwise._nodes.learning import Learning, Read
from lagwise._nodes.log import log_event
from lagwise._nodes.prober import Prober
from lagwise._nodes.watch import Watch
from lagwise._pools.patience import patient
from lagwise._pools.traffic import Expected, Traffic
from lagwise._say import say
from lagwise.policy import Policy

_AGES = 3600.0  # seconds; the bound of a wait that ends earlier for another reason


class Monitor(Board):
    """Watches the nodes, and publishes the View. `tell` is called with each event."""

    def __init__(
        self,
        view: View,
        probers: Mapping[str, Prober],
        policy: Policy,
        clock: Callable[[], float],
        readers: Mapping[str, Traffic],
        *,
        tell: Watcher = log_event,
        catalog: Any = None,
        read_catalog: Read | None = None,
        learned: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(view, clock, tell)
        self._policy = policy
        self._stopped = self._stopping = False
        self._reads = read_catalog is not None
        self._learning = learning = Learning(read_catalog, catalog, clock, learned)
        self._watches = {
            name: Watch(name, prober, readers[name], self, learning, policy, clock, tell)
            for name, prober in probers.items()
        }
        self._patience = min(policy.probe_timeout, policy.close_timeout / 2)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start watching; returns when every node has answered or failed once, at most two time-outs later.

        Within this time it also waits for the catalog: until it is read every query counts as unseen code, and a
        session that runs one cannot move to another node.
        """
        began = self.clock()
        self._task = asyncio.create_task(self._run(), name="lagwise-monitor")
        with suppress(TimeoutError):
            async with patient(2 * self._policy.probe_timeout):
                for watch in self._watches.values():
                    await self._tried(watch, began, began + _AGES)
                if self._reads and any(watch.prober.connected for watch in self._watches.values()):
                    await self._learning.tried.wait()
        self.open()

    async def stop(self) -> None:
        """Stop watching; returns when the tasks and their connections are gone, `close_timeout` later at most."""
        self._stopped = self._stopping = True
        self.close()
        if self._task is not None:
            self._task.cancel()
            _, late = await asyncio.wait({self._task}, timeout=self._policy.close_timeout)
            if late:
                say(logging.WARNING, "monitor-abandoned", seconds=self._policy.close_timeout)

    @property
    def scenario(self) -> str:
        """How the nodes stand now, in a line; no address is in it."""
        return self.view.described(self.clock(), self._policy.max_lag)

    @property
    def stopped(self) -> bool:
        """Whether `stop()` was called."""
        return self._stopped

    @property
    def ended(self) -> bool:
        """Whether watching has ended without `stop()`: the View will not change any more."""
        return self._task is not None and self._task.done() and not self._stopped

    async def improved(self, reason: Reason, floor: int, since: float, deadline: float) -> bool:
        """Wait until a route that ended in this reason is worth deciding anew; False at `deadline`.

        `floor` is the position that no replica has replayed, `since` the moment up to which no replica
        has every commit. The caller has just looked at the view, with no await since: no reading can have come between.
        """
        seconds = deadline - self.clock() if not self._stopped else 0.0
        if reason is Reason.NONE_CAUGHT_UP:
            self.hurry(node.name for node in self.view.rotation)
            return await self._floors.wait(floor, seconds)
        self.hurry(self._watches)  # freshness, and another history, need the primary's reading as well
        if reason is Reason.ALL_LAGGING:
            return await self._times.wait(since, seconds)
        return await self._histories.wait(0.0, seconds)

    async def reached_by_all(self, floor: float, deadline: float) -> bool:
        """Wait until every replica in rotation has replayed `floor`, or a node's standing changes; False at `deadline`.

        The caller has just looked at the view, with no await since.
        """
        for node in self.view.rotation:
            self._watches[node.name].expect()
        return await self._laggards.wait(floor, deadline - self.clock())

    async def after(self, name: str, moment: float, deadline: float) -> Reading | None:
        """A reading of this node from a probe sent after `moment`, or None when there is none by `deadline`.

        Both are monotonic seconds. Callers share readings: one that asks while a probe is in flight gets the next.
        """
        await self._tried(self._watches[name], moment, deadline)
        reading = self.view.node(name).reading
        return reading if reading is not None and reading.at >= moment else None

    def expect(self, name: str) -> None:
        """Ask for a newer reading of this node soon, in no hurry: ten in a second at most."""
        self._watches[name].expect()

    async def soon(self, name: str, moment: float, deadline: float) -> Reading | None:
        """As `after`, in no hurry."""
        watch = self._watches[name]
        while watch.tried_at < moment:
            watch.expect()
            if not await watch.tried.wait(moment, deadline - self.clock()):
                return None
        reading = self.view.node(name).reading
        return reading if reading is not None and reading.at >= moment else None

    async def settled(self, moment: float, deadline: float, *, every: bool = False) -> None:
        """Wait until every unreachable node, or every node at all, has been tried again since `moment`."""
        asked = [self._watches[node.name] for node in self.view.nodes if every or node.reading is None]
        for watch in asked:
            if watch.tried_at < moment:
                watch.ask(moment)
        for watch in asked:
            await self._tried(watch, moment, deadline)

    def hurry(self, names: Iterable[str]) -> None:
        """Ask for a newer reading of these nodes than the interval would bring, at a bounded rate for all callers."""
        for name in names:
            self._watches[name].hurry()

    def lost(self, name: str, error: str) -> None:
        """Forget the reading of a node to which a session lost a connection, and probe the node at once."""
        node = self.view.node(name)
        if node.reading is not None:
            self._publish(replace(node, reading=None, cause=Cause(Kind.LOST, error)))
        self._watches[name].ask()

    def suspect(self, name: str, _error: str = "") -> None:
        """Probe over new connections until one succeeds: a session got none, or its statement timed out."""
        self._watches[name].distrust()

    def drain(self, name: str, *, drained: bool) -> None:
        """Take a replica out of rotation, or let it back."""
        self._publish(replace(self.view.node(name), drained=drained))

    def leads_to(self, name: str) -> Expected:
        """What a new connection to this node must lead to.

        Between two probes a name may lead to another environment, whose rows are no answer; and a replica that has
        crashed may open at an earlier position than it has shown.
        """
        view, shown = self.view, self._watches[name].shown
        system = view.system if view.identity.sure and (view.terms.pinned or not view.alone) else 0
        return Expected(system, shown.lsn if shown is not None and shown.role is Role.REPLICA else 0)

    @property
    def catalog(self) -> Any:
        """What `read_catalog(driver, timeout)` answered last, or the `catalog` given until then."""
        return self._learning.value

    def relearn(self) -> None:
        """Read the catalog again, soon: a statement names what is not in it."""
        self._learning.again()

    async def _run(self) -> None:
        try:
            for watch in self._watches.values():
                self._begin(watch)
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._stopping = True
            if not self._stopped:
                say(logging.ERROR, "monitor-ended")
            tasks = tuple(self._tasks.values())
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            ending = asyncio.create_task(self._learning.stop(self._patience), name="lagwise-monitor-catalog-ending")
            await asyncio.wait((*tasks, ending))

    def _begin(self, watch: Watch) -> None:
        if not self._stopping:
            task = asyncio.create_task(watch.run(), name=f"lagwise-monitor-{watch.name}")
            self._tasks[watch.name] = task
            task.add_done_callback(partial(self._watch_ended, watch))

    def _watch_ended(self, watch: Watch, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._tasks.get(watch.name) is task and not self._stopping:
            say(logging.ERROR, "watch-restarted", node=watch.name, error=str(cause_of(error)) if error else "cancelled")
            asyncio.get_running_loop().call_later(self._policy.probe_interval, self._begin, watch)

    async def _tried(self, watch: Watch, moment: float, deadline: float) -> None:
        while watch.tried_at < moment:
            watch.ask(moment)
            if not await watch.tried.wait(moment, deadline - self.clock()):
                return
