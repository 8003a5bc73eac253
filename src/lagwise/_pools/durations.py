"""How long something took, each time: seconds, in fixed buckets."""

import logging
from bisect import bisect_left
from collections.abc import Callable

from lagwise._say import say

# OpenTelemetry's advice for how long a database client's operations take:
# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


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
