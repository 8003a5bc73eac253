"""One task that reads every node and publishes the View; readers wait for the next one."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Protocol

from lagwise._client.causality import known_systems
from lagwise._decide.view import Node, Reading, Standing, View
from lagwise._nodes.probe import Prober
from lagwise.policy import Policy

_log = logging.getLogger("lagwise")
_GAP = 0.002  # seconds between two probes of a node that readers wait for, however many wait


@dataclass(slots=True, eq=False)
class _Watch:
    """The reading loop of one node: sequential, so that no two probes of a node are ever in flight."""

    prober: Prober
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float = -inf
    failed_at: float = -inf
    tried_at: float = -inf
    """When the latest probe that has ended, well or badly, was begun."""
    silence: asyncio.TimerHandle | None = None
    """Runs out when the node has been silent for the policy's `abort_after`."""

    @property
    def asking(self) -> bool:
        """Whether a probe is in flight."""
        return self.tried_at < self.started_at

    def ask(self, moment: float) -> None:
        """Want a probe that begins after `moment`; one in flight that did will do."""
        if not (self.asking and self.started_at >= moment):
            self.wanted.set()


class Readers(Protocol):
    """Those who read from one node, who cannot see by themselves that it is silent."""

    def turn_away(self) -> None:
        """It did not answer a probe: do not wait for a connection to it."""

    def abort(self) -> None:
        """It has been silent for too long: do not wait for its answers either."""


class Monitor:
    """Watches the nodes. `view` is the latest picture; it is replaced, never changed."""

    def __init__(
        self,
        view: View,
        probers: Mapping[str, Prober],
        policy: Policy,
        clock: Callable[[], float],
        readers: Mapping[str, Readers],
    ) -> None:
        self.view = view
        self.clock = clock
        self._policy = policy
        self._readers = readers
        self._rivals: tuple[str, ...] = ()
        self._opened = False
        self._news: dict[str, Node] = {}
        self._watches = {name: _Watch(prober) for name, prober in probers.items()}
        for name, prober in probers.items():
            prober.lost = partial(self.lost, name, "ConnectionLost")
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start watching; returns when every node has answered or failed once, at most two time-outs later."""
        self._task = asyncio.create_task(self._run(), name="lagwise-monitor")
        deadline = self.clock() + 2 * self._policy.probe_timeout
        await self.until(lambda: all(watch.tried_at > -inf for watch in self._watches.values()), deadline)
        # Judged together: whoever answered first must not decide which cluster is ours.
        self._opened = True
        self._publish()

    async def stop(self) -> None:
        """Stop watching, and wait until the task and its connections are gone."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def until(self, satisfied: Callable[[], bool], deadline: float) -> bool:
        """Wait until `satisfied()`, which is asked at every reading; False at `deadline`, monotonic seconds.

        Check, subscribe, check again: the future is taken before the check, with no await in between.
        """
        while True:
            changed = self._changed
            if satisfied():
                return True
            left = deadline - self.clock()
            if left <= 0:
                return False
            await asyncio.wait((changed,), timeout=left)

    async def after(self, name: str, moment: float, deadline: float) -> Reading | None:
        """A reading of this node that was asked for after `moment`, or None when that fails.

        Callers share readings: whoever arrives while one is in flight gets the next.
        """
        watch = self._watches[name]

        def settled() -> bool:
            if watch.failed_at >= moment:
                return True
            reading = self.view.node(name).reading
            if reading is not None and reading.at >= moment:
                return True
            watch.ask(moment)
            return False

        await self.until(settled, deadline)
        reading = self.view.node(name).reading
        return reading if reading is not None and reading.at >= moment else None

    async def settled(self, moment: float, deadline: float, *, every: bool = False) -> None:
        """Wait until every unreachable node, or every node at all, has been tried again since `moment`."""

        def tried() -> bool:
            asked = [node.name for node in self.view.nodes if every or node.reading is None]
            waiting = [name for name in asked if self._watches[name].tried_at < moment]
            for name in waiting:
                self._watches[name].ask(moment)
            return not waiting

        await self.until(tried, deadline)

    def hurry(self, names: Mapping[str, object] | tuple[str, ...]) -> None:
        """Ask for a newer reading of these nodes than the interval would bring; paced for all who ask."""
        now = self.clock()
        for name in names:
            watch = self._watches[name]
            if not watch.asking and now - watch.started_at >= _GAP:
                watch.wanted.set()

    def lost(self, name: str, error: str) -> None:
        """A request lost this node: forget its reading until the next probe, which is due at once."""
        node = self.view.node(name)
        if node.reading is not None:
            self._publish(replace(node, reading=None, error=error))
        self._watches[name].wanted.set()

    def drain(self, name: str, *, drained: bool) -> None:
        """Take a replica out of rotation, or let it back."""
        self._publish(replace(self.view.node(name), drained=drained))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, watch in self._watches.items():
                group.create_task(self._keep_reading(name, watch), name=f"lagwise-monitor-{name}")

    async def _keep_reading(self, name: str, watch: _Watch) -> None:
        try:
            while True:
                watch.wanted.clear()
                watch.started_at = self.clock()
                await self._read(name, watch)
                await _at_most(watch.wanted.wait(), self._pause(watch))
        finally:
            self._heard(watch)
            await watch.prober.close()

    def _pause(self, watch: _Watch) -> float:
        """Jitter, so that many processes do not probe in step; a node that is down is asked less often.

        Never longer than the interval: from a node's silence to its first unanswered probe no more may pass.
        """
        least, most = (0.75, 0.95) if watch.silence is None else (1.0, 1.7)
        return self._policy.probe_interval * random.uniform(least, most)  # noqa: S311 - not a secret

    async def _read(self, name: str, watch: _Watch) -> None:
        started = watch.started_at
        try:
            reading = await watch.prober.read()
        except Exception as error:
            watch.failed_at = watch.tried_at = started
            if watch.silence is None:
                self._count_silence(name, watch, self._policy.abort_after - (self.clock() - started))
            self._publish(replace(self.view.node(name), reading=None, error=type(error).__name__))
            self._readers[name].turn_away()
        else:
            watch.tried_at = started
            self._heard(watch)
            self._publish(replace(self.view.node(name), reading=reading, error=None))

    def _count_silence(self, name: str, watch: _Watch, left: float) -> None:
        def silent() -> None:
            self._readers[name].abort()
            # Reads that had been on their way here when the node was given up wait no longer than the first.
            self._count_silence(name, watch, self._policy.probe_interval)

        watch.silence = asyncio.get_running_loop().call_later(max(0.0, left), silent)

    @staticmethod
    def _heard(watch: _Watch) -> None:
        if watch.silence is not None:
            watch.silence.cancel()
            watch.silence = None

    def _publish(self, *news: Node) -> None:
        self._news.update({node.name: node for node in news})
        if self._opened:
            before, fresh = self.view, self._news
            self.view, self._news = View.of((fresh.get(node.name, node) for node in before.nodes), before), {}
            known_systems.add(self.view.system)
            self._report(before)
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    def _report(self, before: View) -> None:
        for was, now in zip(before.nodes, self.view.nodes, strict=True):
            if was.standing is not now.standing:
                _log.info(
                    "node-changed",
                    extra={"node": now.name, "standing": str(now.standing), "error": now.error},
                )
        rivals = tuple(each.name for each in self.view.nodes if each.standing is Standing.RIVAL_PRIMARY)
        if len(rivals) > 1 and self.view.primary is None and rivals != self._rivals:
            _log.error("two-primaries", extra={"nodes": rivals})
        self._rivals = rivals


async def _at_most(awaitable: Awaitable[object], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await awaitable
