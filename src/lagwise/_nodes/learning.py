"""What the monitor reads from a node, rarely, and sooner when it is asked to: the database's catalog."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

from lagwise._decide.failure import cause_of
from lagwise._nodes.prober import Prober
from lagwise._say import say

_GAP = 10.0  # seconds between two readings, and after one that failed
_REST = 60.0  # seconds between two readings that were not asked for
_SHARE = 1000  # such a reading comes after so many times its own duration, at the earliest
# Seconds that a reading may take. A database with 4,000 tables takes two: a catalog that is never read costs every
# query a reset, so this bound is there for servers that do not answer, and not for large ones.
_BOUND = 60.0
Read = Callable[[Any, float], Awaitable[Any]]


class Learning:
    """`value` is the latest answer of `read(driver, timeout)`, `first` until then.

    `learned` is called with every value that is not the one before.
    `value` is read again every minute, for what others have changed. Where that takes long, it takes at most a
    thousandth of the time.
    """

    def __init__(
        self, read: Read | None, first: Any, clock: Callable[[], float], learned: Callable[[Any], None] | None = None
    ) -> None:
        self.value = first
        self.tried = asyncio.Event()
        """Whether it has been read, or a reading has failed, for the first time."""
        self._learned = learned
        self._read = read
        self._clock = clock
        self._due = inf if read is None else -inf
        self._read_at = -inf
        self._task: asyncio.Task[None] | None = None
        self._prober: Prober | None = None

    def again(self) -> None:
        """Read once more, ten seconds after the last time at the earliest."""
        if self._read is not None:
            self._due = min(self._due, self._read_at + _GAP)

    def offer(self, prober: Prober) -> None:
        """Read from this node, which has just answered, if that is due: in a task, so that probes go on meanwhile."""
        if self._clock() >= self._due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self.from_node(prober), name="lagwise-monitor-catalog")
            self._prober = prober

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109 - a server's, not a task's
        """End a reading that is under way; returns when it is gone.

        The server is told to end its query; where it does not hear that within `timeout`, seconds, the connection ends.
        """
        if self._task is not None and self._prober is not None:
            self._task.cancel()
            _, late = await asyncio.wait((self._task,), timeout=timeout)
            if late:
                self._prober.cut_off()
                await asyncio.wait(late)

    async def from_node(self, prober: Prober) -> None:
        """Read from this node if that is due."""
        if self._read is None or self._clock() < self._due:
            return
        self._due, self._read_at = inf, self._clock()  # what is asked for from here on needs another reading
        rest = _GAP
        try:
            before, self.value = self.value, await prober.run(self._read, _BOUND)
            if self._learned is not None and self.value is not before:
                self._learned(self.value)
            rest = max(_REST, _SHARE * (self._clock() - self._read_at))
        except Exception as error:
            say(logging.WARNING, "catalog-unread", error=str(cause_of(error)))
        finally:
            self._due = min(self._due, self._clock() + rest)
            self.tried.set()
