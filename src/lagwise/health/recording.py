"""Remembers what a status page shows of the last minutes."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from math import isfinite
from secrets import token_hex
from time import monotonic

from lagwise._decide.events import Event, NodeChanged, Refused, Routed
from lagwise._decide.view import Standing, View
from lagwise.errors import NotOpen
from lagwise.health.recent import Happenings, PerSecond, Samples
from lagwise.health.telling import moved, told
from lagwise.router import Router

_SHORTEST = 0.1  # seconds between two looks
_BEHIND = {Standing.IN_ROTATION, Standing.DRAINED}


class Recording:
    """Counts and samples what happens to a Router, from the moment it is made.

    Sessions are counted as they are routed. A timer in the Router's event loop looks at the View once in each
    `probe_interval`, and keeps the highest staleness of each `interval`, seconds. The Router's first event starts it,
    and it ends by itself when the Router is closed.

    Attributes:
        instance: tells this process, and this Router, from others that answer at the same address.
    """

    def __init__(self, db: Router, interval: float = 1.0, clock: Callable[[], float] = monotonic) -> None:
        self.db = db
        self.interval = interval
        self.clock = clock
        self.instance = token_hex(4)
        self.routes, self.refusals = PerSecond(), PerSecond()
        self.samples, self.happenings = Samples(), Happenings()
        self._began = clock()
        self._step, self._highest = -1, dict[str, float]()
        self._standings: dict[str, Standing] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        db.watch(self.hear)

    def hear(self, event: Event) -> None:
        """Take note of an event."""
        now = self.clock()
        if isinstance(event, Routed):
            self.routes.add(event.route.reason, now)
        elif isinstance(event, Refused):
            self.refusals.add(event.error, now)
        elif isinstance(event, NodeChanged):
            self._compare(self.db.view, now)
        elif (one := told(event)) is not None:
            self.happenings.add(one, now)
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:  # the loop of an earlier opening has taken its timer along
            self._loop = loop
            # An empty context: a request that has told the first event ends before the timer does.
            self._timer = loop.call_later(self._pause, self._tick, context=Context())

    @property
    def _pause(self) -> float:
        return min(self.interval, max(_SHORTEST, self.db.policy.probe_interval))

    def _tick(self) -> None:
        self._timer = None
        try:
            view = self.db.view
        except NotOpen:
            return
        now = self.clock()
        self._compare(view, now)
        self._sample(view, now)
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._tick)

    def _sample(self, view: View, now: float) -> None:
        step = int((now - self._began) / self.interval)
        if step != self._step:  # a step is told when it is over: what was told once does not change
            if self._step >= 0:
                self.samples.add(self._step, self._highest)
            self._step, self._highest = step, {}
        for node in view.nodes:
            seconds = node.staleness(now)
            if node.standing in _BEHIND and isfinite(seconds):
                self._highest[node.name] = max(self._highest.get(node.name, 0.0), round(seconds, 3))

    def _compare(self, view: View, now: float) -> None:
        """Note whose standing has changed. That a replica lags is no event: it is a matter of time, not of a reading.

        The standings of the first View in which a node has answered are where it begins, and no news.
        """
        if not isfinite(view.at):
            return
        standings = {node.name: view.standing(node, self.db.policy.max_lag, now) for node in view.nodes}
        for node in view.nodes:
            before, standing = self._standings.get(node.name), standings[node.name]
            if before is not None and before is not standing:
                self.happenings.add(moved(node.name, before, standing, node.error), now)
        self._standings = standings
