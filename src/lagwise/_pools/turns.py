"""Who waits for a connection of one pool: in turn, asleep, and never for ever."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

_LOOK = 1.0
"""Seconds after which the first in line looks again by itself: a detached connection leaves without a word."""
_TICKS, _ON_TIME, _LATE = 20, 4, 1
_PUNCTUAL = 0.02  # seconds; an idle event loop is no later than that


class Turns:
    """The line at one pool, and at its reserve.

    SQLAlchemy's own queue wakes a waiter and lets a newcomer take the connection before it runs. Here a newcomer
    stands behind those who wait, and the one that waits for the network is not in line any more. One race remains: the
    owner of an engine who uses its pool directly stands in no line, and may take what the first in line was woken
    for. That one looks again, and keeps its place.
    """

    def __init__(self) -> None:
        self._first: deque[_Place] = deque()
        self._line: deque[_Place] = deque()
        self._kin: deque[_Place] = deque()

    def go_on(self) -> None:
        """A connection came back, or may be opened: those who are first in line look."""
        for line in (self._first or self._line, self._kin):
            if line:
                line[0].woken.set()

    def turn_away(self) -> None:
        """Those who wait shall not wait here any longer."""
        for place in (*self._first, *self._line):
            place.away = True
            place.woken.set()

    async def wait(
        self, available: Callable[[], bool], spare: Callable[[], bool], seconds: float, *, first: bool, kin: bool
    ) -> None:
        """Wait until it is one's turn and a connection is `available()`, or the reserve is to `spare()`.

        `first`: before those who hold nothing; `kin`: the reserve may be used.

        Raises:
            TimeoutError: not within `seconds`.
            TurnedAway: the node is not worth waiting for.
        """
        place, deadline = _Place(), monotonic() + seconds
        lines = [self._first if first else self._line, *([self._kin] if kin else ())]
        for line in lines:
            line.append(place)
        try:
            while True:
                if (self._first or self._line)[0] is place and available():
                    return
                if kin and self._kin[0] is place and spare():
                    return
                left = deadline - monotonic()
                if left <= 0:
                    raise TimeoutError
                await place.sleep(min(left, _LOOK))
                if place.away:
                    raise TurnedAway
        finally:
            for line in lines:
                line.remove(place)
            self.go_on()


class TurnedAway(Exception):  # noqa: N818 - the event, not a type of error
    """The node did not answer another session: one that waits for a connection to it goes elsewhere."""


class _Place:
    """One place in the line."""

    def __init__(self) -> None:
        self.away = False
        self.woken = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep until woken, `seconds` at most."""
        handle = asyncio.get_running_loop().call_later(seconds, self.woken.set)
        try:
            await self.woken.wait()
        finally:
            handle.cancel()
        self.woken.clear()


class Connecting:
    """The tasks that are about to get a connection of a node: each ends within a bound, or at once when told to.

    One timer for all: a pool gives an open connection without waiting, and then nothing is scheduled anew. The bound is
    counted in ticks, as `Patience` counts: a tick that comes late says that this process is busy, and counts a quarter.
    """

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[object], tuple[int, int]] = {}
        self._ended: dict[asyncio.Task[object], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._counted = 0
        self._due = 0.0

    def begin(self, task: asyncio.Task[object], bound: float) -> None:
        """This task begins to connect, and may take `bound` seconds."""
        self._running[task] = (self._counted, task.cancelling())
        if self._timer is None:
            self._arm(bound / _TICKS)

    def end(self, task: asyncio.Task[object]) -> None:
        """It has its connection; told to end a moment too late, it is not cancelled."""
        self._running.pop(task, None)
        if self._ended and self._ended.pop(task, None) is not None:
            task.uncancel()

    def timed_out(self, task: asyncio.Task[object]) -> bool:
        """It has failed: whether its cancellation came from here alone."""
        self._running.pop(task, None)
        before = self._ended.pop(task, None)
        return before is not None and task.uncancel() <= before

    def abort(self) -> None:
        """End all of them."""
        for task in list(self._running):
            self._cut_off(task)

    def close(self) -> None:
        """No task connects any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self, task: asyncio.Task[object]) -> None:
        if task not in self._ended and not task.done():
            self._ended[task] = self._running[task][1]
            task.cancel()

    def _arm(self, tick: float) -> None:
        self._due = monotonic() + tick
        self._timer = asyncio.get_running_loop().call_later(tick, self._ticked, tick)

    def _ticked(self, tick: float) -> None:
        self._timer = None
        self._counted += _LATE if monotonic() - self._due > max(tick / 4, _PUNCTUAL) else _ON_TIME
        for task, (since, _) in list(self._running.items()):
            if self._counted - since >= _TICKS * _ON_TIME:
                self._cut_off(task)
        if self._running:
            self._arm(tick)
