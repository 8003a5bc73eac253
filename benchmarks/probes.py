"""Counts what the monitor of an open Router asks of each node, and tells what was asked for from what was due."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from lagwise import Router
from lagwise._decide.view import Reading, Role


class Probes:
    """The probes of a Router from now on: one probe is one round trip.

    The monitor pauses for 0.9 to 1.1 probe intervals. A probe that begins sooner after the one before was asked for:
    of the primary by a commit that wants its position, of a replica by a read that waits for one.
    """

    def __init__(self, db: Router) -> None:
        monitor: Any = db._nodes.monitor
        self._pause = db.policy.probe_interval * 0.9
        self._clock: Callable[[], float] = monitor.clock
        self.due, self.asked = Counter[Role](), Counter[Role]()
        for watch in monitor._watches.values():
            watch.prober.read = self._counted(watch.prober.read)

    def _counted(self, read: Callable[[], Awaitable[Reading]]) -> Callable[[], Awaitable[Reading]]:
        ended = self._clock()

        async def counted() -> Reading:
            nonlocal ended
            due = self._clock() - ended >= self._pause
            reading = await read()
            ended = self._clock()
            (self.due if due else self.asked)[reading.role] += 1
            return reading

        return counted

    def take(self) -> Counter[Role]:
        """What was asked for since the last time."""
        asked, self.asked = self.asked, Counter()
        return asked
