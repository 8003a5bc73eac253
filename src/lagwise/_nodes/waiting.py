"""Queues of waiters, in the order of the number they wait for, each woken once; and for how long a session waited."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import count
from math import inf

_MOST = 10_000  # waiters; a further one does not wait


class Wait:
    """Adds up for how long one session has waited: `seconds`, 0.0 unless a block was entered."""

    __slots__ = ("_began", "_clock", "seconds")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = self._began = 0.0
        self._clock = clock

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._began


class Queue:
    """Waiters in the order of what they wait for: a log position, or a moment.

    A number that is reached wakes a prefix: the cost depends on the waiters that are woken, not on how many others
    wait. A waiter that is cancelled, or whose time is over, is removed.
    """

    __slots__ = ("_numbers", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, least: float, seconds: float) -> bool:
        """Wait for `least` to be reached; False after `seconds`, or at once when the queue is full.

        The caller must check first whether `least` has been reached already, with no await between check and call.
        """
        if seconds <= 0 or len(self._waiting) >= _MOST:
            return False
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[bool] = loop.create_future()
        waiter = (least, next(self._numbers), woken)
        self._waiting.insert(bisect_left(self._waiting, waiter), waiter)
        timer = loop.call_later(seconds, _wake, woken, False)
        try:
            return await woken
        finally:
            timer.cancel()
            index = bisect_left(self._waiting, waiter)
            if index < len(self._waiting) and self._waiting[index] is waiter:
                del self._waiting[index]

    def reach(self, value: float = inf) -> int:
        """Wake the waiters for `value` or less, and no others; answers how many."""
        if not self._waiting or self._waiting[0][0] > value:
            return 0
        index = bisect_right(self._waiting, value, key=_least)
        reached, self._waiting[:index] = self._waiting[:index], []
        for _, _, woken in reached:
            _wake(woken, True)
        return len(reached)


def _least(waiter: tuple[float, int, asyncio.Future[bool]]) -> float:
    return waiter[0]


def _wake(woken: asyncio.Future[bool], reached: bool) -> None:
    if not woken.done():
        woken.set_result(reached)
