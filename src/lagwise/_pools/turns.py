"""Lines of sessions that wait for a connection of one pool: in turn, and for a limited time."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

_LOOK = 1.0
"""Seconds after which the first in line checks the pool by itself: a detached connection leaves without an event."""


class Turns:
    """The line at one pool, and at its reserve.

    SQLAlchemy's own queue wakes a waiter, and a newcomer can take the connection before the waiter runs. Here a
    newcomer waits behind the others, and a session that waits for the network has left the line. One race remains: the
    owner of an engine can use its pool directly, without the line, and take the connection for which the first in line
    was woken. The first in line then checks again, and keeps its place.
    """

    def __init__(self) -> None:
        self._first: deque[_Place] = deque()
        self._line: deque[_Place] = deque()
        self._kin: deque[_Place] = deque()

    def go_on(self) -> None:
        """Wake the first in each line: a connection came back, or may be opened."""
        for line in (self._first or self._line, self._kin):
            if line:
                line[0].woken.set()

    def turn_away(self) -> None:
        """End the wait of every session in line, with `TurnedAway`."""
        for place in (*self._first, *self._line):
            place.turn_away()

    async def wait(
        self, available: Callable[[], bool], spare: Callable[[], bool], seconds: float, *, first: bool, kin: bool
    ) -> None:
        """Wait until a connection is `available()` and the caller is first in line, or the reserve is to `spare()`.

        `first`: wait before sessions whose task holds no connection; `kin`: the reserve may be used.

        Raises:
            TimeoutError: there was no connection within `seconds`.
            TurnedAway: the node has not answered another session, or is silent.
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
    """The node does not answer: a session that waits for a connection to it goes to another node."""


class _Place:
    """One place in the line."""

    def __init__(self) -> None:
        self.away = False
        self.woken = asyncio.Event()

    def turn_away(self) -> None:
        """End the wait: there is no hope."""
        self.away = True
        self.woken.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep until woken, `seconds` at most."""
        handle = asyncio.get_running_loop().call_later(seconds, self.woken.set)
        try:
            await self.woken.wait()
        finally:
            handle.cancel()
        self.woken.clear()
