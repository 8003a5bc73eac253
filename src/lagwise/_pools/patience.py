"""A time-out that measures a server's silence, and not how busy this process is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

TICKS = 20
"""The ticks that a time-out is made of."""
_ON_TIME, _LATE = 4, 1
ENOUGH = TICKS * _ON_TIME
"""What the ticks of a time-out count together when all come in time."""
_PUNCTUAL = 0.02  # seconds; an idle event loop is no later than that


def counts(late: float, tick: float) -> int:
    """What a tick of `tick` seconds counts that came `late` seconds late: late ones show a busy process.

    Long ticks are late after a quarter of their length: endpoints that compute for 0.1 s each, one after the other,
    make each tick of 0.25 s late by that much at most. Short ones are late after their whole length: no event loop is
    more punctual.
    """
    return _LATE if late > min(tick, max(tick / 4, _PUNCTUAL)) else _ON_TIME


class Patience:
    """Calls `end` when a server has not answered for `seconds` in which this process could have read the answer.

    A timer that has run out says nothing of a server when the event loop was busy with an endpoint, when other
    threads held the interpreter, or when the whole process was stopped: the answer lies in the socket, and uvloop
    runs timers before it looks at sockets. So the time is counted in twenty ticks, each a timer of its own: between
    two of them the loop looks at its sockets. A tick that comes late counts a quarter, however late.
    """

    __slots__ = ("_due", "_end", "_handle", "_left", "_loop", "_tick", "ran_out")

    def __init__(self, seconds: float, end: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick = max(seconds, 0.001) / TICKS
        self._left = ENOUGH
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._end = end
        self.ran_out = False

    def end_with(self, end: Callable[[], object]) -> None:
        """Call this instead, from here on."""
        self._end = end

    def __enter__(self) -> Self:
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Count no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wait(self) -> None:
        self._due = self._loop.time() + self._tick
        self._handle = self._loop.call_later(self._tick, self._ticked)

    def _ticked(self) -> None:
        self._left -= counts(self._loop.time() - self._due, self._tick)
        if self._left > 0:
            self._wait()
        else:
            self._handle, self.ran_out = None, True
            self._end()


@asynccontextmanager
async def patient(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout(seconds)`, counted as `Patience` counts."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        def end() -> None:
            if not limit.expired():
                limit.reschedule(loop.time())

        with Patience(seconds, end):
            yield
