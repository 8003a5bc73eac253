"""New connections under way, each for a limited time."""

import asyncio
from time import monotonic

from lagwise._pools.patience import ENOUGH, TICKS, counts


class Connecting:
    """The tasks that connect to a node now: each is cancelled when its time is over, or at once by `abort()`.

    One timer for all: a pool gives an open connection without waiting, and then nothing is scheduled anew. The bound is
    counted in ticks, as `Patience` counts.
    """

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[object], tuple[int, int]] = {}
        self._ended: dict[asyncio.Task[object], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._counted = 0
        self._due = 0.0

    def begin(self, task: asyncio.Task[object], bound: float) -> None:
        """Note that this task begins to connect, and may take `bound` seconds."""
        self._running[task] = (self._counted, task.cancelling())
        if self._timer is None:
            self._arm(bound / TICKS)

    def end(self, task: asyncio.Task[object]) -> None:
        """Note that the task has its connection; undo a cancellation that came a moment too late."""
        self._running.pop(task, None)
        if self._ended and self._ended.pop(task, None) is not None:
            task.uncancel()

    def timed_out(self, task: asyncio.Task[object]) -> bool:
        """Note that the task has failed; whether this class alone has cancelled it."""
        self._running.pop(task, None)
        before = self._ended.pop(task, None)
        return before is not None and task.uncancel() <= before

    def abort(self) -> None:
        """Cancel all tasks that connect now."""
        for task in list(self._running):
            self._cut_off(task)

    def close(self) -> None:
        """Stop the timer: no task connects any more."""
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
        self._counted += counts(monotonic() - self._due, tick)
        for task, (since, _) in list(self._running.items()):
            if self._counted - since >= ENOUGH:
                self._cut_off(task)
        if self._running:
            self._arm(tick)
