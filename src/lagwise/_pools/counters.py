"""How full a pool is, and what has happened at it."""

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nlargest
from time import monotonic
from typing import Any
from weakref import WeakSet

from sqlalchemy.engine import Connection
from sqlalchemy.pool import Pool

from lagwise._pools.internals import most_overflow
from lagwise._say import say

# OpenTelemetry's advice for how long a database client's operations take:
# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_RECENT = 10.0  # seconds
_PATIENCE = 30.0  # seconds that a session waits for a connection, where its pool does not say: SQLAlchemy's default


class Durations:
    """A histogram of durations, seconds.

    Attributes:
        at_once: how often it took no time, and no clock was read.
        total: seconds, of all together.
        heard: called with each duration, in the event loop: they must not block. Empty unless telemetry is on.
    """

    __slots__ = ("_counts", "at_once", "heard", "total")

    def __init__(self) -> None:
        self.at_once = 0
        self.total = 0.0
        self.heard: tuple[Callable[[float], object], ...] = ()
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """It took this long."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        for hear in self.heard:
            hear(seconds)

    def add_none(self) -> None:
        """It took no time."""
        self.at_once += 1
        for hear in self.heard:
            hear(0.0)

    def hear(self, hear: Callable[[float], object]) -> Callable[[], None]:
        """Call `hear` with each duration from now on; the function returned ends that.

        What it raises is logged, and goes no further: a session does not fail for its telemetry.
        """

        def guarded(seconds: float) -> None:
            try:
                hear(seconds)
            except Exception as error:
                say(logging.ERROR, "watcher-failed", watched="Durations", error=type(error).__name__)

        def stop() -> None:
            self.heard = tuple(each for each in self.heard if each is not guarded)

        self.heard = (*self.heard, guarded)

        return stop

    @property
    def counts(self) -> tuple[int, ...]:
        """How many were of each bucket: up to and including each of `BOUNDS`, and beyond the last. Not cumulative."""
        first, *others = self._counts
        return (first + self.at_once, *others)

    @property
    def count(self) -> int:
        """How many there were."""
        return self.at_once + sum(self._counts)


@dataclass(slots=True, eq=False)
class Counters:
    """Counts of what happened at one pool since the Router was made, and the connections in use now.

    Attributes:
        waits: sessions that had to wait for a connection; `waiting` of them wait now.
        timeouts: sessions that got none in time.
        opened: connections opened.
        wait_time: how long sessions waited for another's connection, however the wait ended; 0 for those that did not.
        create_time: how long it took to open a connection and to set it up; only for PostgreSQL.
    """

    waits: int = 0
    waiting: int = 0
    timeouts: int = 0
    opened: int = 0
    wait_time: Durations = field(default_factory=Durations, repr=False)
    create_time: Durations = field(default_factory=Durations, repr=False)
    out: WeakSet[Connection] = field(default_factory=WeakSet, repr=False)
    """Connections that sessions got; those that went back to the pool are closed, and not in use."""
    _recently: deque[float] = field(default_factory=lambda: deque(maxlen=10_000), repr=False)

    @contextmanager
    def pending(self) -> Iterator[None]:
        """Count a session that waits for a connection inside the block, and for how long."""
        self.waits += 1
        self.waiting += 1
        began = monotonic()
        try:
            yield
        finally:
            self.waiting -= 1
            self.wait_time.add(monotonic() - began)

    def refuse(self) -> None:
        """Count a session that would wait in vain."""
        self.waits += 1
        self.timeouts += 1
        self.wait_time.add_none()

    def give_up(self) -> None:
        """Count a session that has waited in vain."""
        self.timeouts += 1

    def open(self, now: float, began: float | None = None) -> None:
        """Count a connection opened at `now`; `began`: when opening it began. Monotonic seconds."""
        self.opened += 1
        self._recently.append(now)
        if began is not None:
            self.create_time.add(now - began)

    def opened_per_second(self, now: float) -> float:
        """The mean of the last ten seconds. A pool that is large enough opens none once it is warm."""
        while self._recently and self._recently[0] < now - _RECENT:
            self._recently.popleft()
        return len(self._recently) / _RECENT

    def in_use(self) -> Iterator[Connection]:
        """The connections that sessions hold now."""
        return (connection for connection in list(self.out) if not connection.closed)

    def longest_held(self, now: float, most: int = 5) -> list[float]:
        """For how long sessions have held their connections: seconds, the `most` longest, the longest first."""
        held: list[float] = [now - getattr(connection, "since", now) for connection in self.in_use()]
        return nlargest(most, held)


def checked_out(pool: Pool) -> int:
    """Connections in use; 0 for pools that do not count them."""
    try:
        return pool.checkedout()  # type: ignore[attr-defined, no-any-return]
    except AttributeError:
        return 0


def idle(pool: Pool) -> bool:
    """Whether the pool has an open connection to give at once."""
    try:
        return pool.checkedin() > 0  # type: ignore[attr-defined, no-any-return]
    except AttributeError:
        return False


def capacity(pool: Pool) -> float:
    """The most connections this pool opens; infinite for pools without a limit."""
    size = getattr(pool, "size", None)  # a number, where the pool is one of threads
    most: Any = size() if callable(size) else float("inf")
    beyond = most_overflow(pool)
    return most + beyond if beyond >= 0 else float("inf")


def available(pool: Pool) -> bool:
    """Whether the pool gives a connection, or opens one, without waiting for another to come back."""
    return idle(pool) or checked_out(pool) < capacity(pool)


def patience(pool: Pool) -> float:
    """How long a session waits for a connection of this pool, seconds."""
    timeout = getattr(pool, "timeout", None)
    seconds: Any = timeout() if callable(timeout) else _PATIENCE
    return seconds  # type: ignore[no-any-return]
