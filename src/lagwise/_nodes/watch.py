"""The reading loop of one node: when the node is probed, and what an answer, a refusal and silence mean."""

import asyncio
import logging
import random
from collections.abc import Callable
from math import inf

from lagwise._decide.events import Event, NodeRefusesConnections, NodeUnreachable, Watcher
from lagwise._decide.failure import FORGOTTEN_STATE, Cause, Kind, cause_of
from lagwise._decide.view import Reading, Role
from lagwise._nodes.board import Board
from lagwise._nodes.learning import Learning
from lagwise._nodes.probe_failure import BUSY, answered, silent, words_of
from lagwise._nodes.prober import Prober
from lagwise._nodes.silence import Silence
from lagwise._nodes.waiting import Queue
from lagwise._pools.driver import WentBack
from lagwise._pools.traffic import Traffic
from lagwise._say import say
from lagwise.policy import Policy

WENT_BACK = Cause(Kind.STARTING, WentBack.__name__)
_LEAST_GAP = 0.001  # seconds between the beginnings of any two probes of a node
_GAP, _LONGEST_GAP = 0.002, 0.1  # seconds between two probes of a node that sessions wait for, however many
_GROWTH = 1.5  # of that gap, for each probe that woke no session
_DISTRUST_GAP = 0.1  # seconds between two new connections made because sessions were refused theirs
_PART = 16  # the most probes of a replica in the time by which it is behind


class Watch:
    """Reads one node again and again: sequential, so that no two probes of a node are ever in flight."""

    def __init__(
        self,
        name: str,
        prober: Prober,
        traffic: Traffic,
        board: Board,
        learning: Learning,
        policy: Policy,
        clock: Callable[[], float],
        tell: Watcher,
    ) -> None:
        self.name = name
        self.prober = prober
        self.tried = Queue()
        """Waiters for the end of a probe that was sent at a moment or later, whether it succeeds or fails."""
        self.tried_at = -inf
        """When the latest probe that has ended was begun: monotonic seconds."""
        self.shown: Reading | None = None
        """The furthest that the node has shown, of the history that it shows."""
        self._started_at = -inf
        self._asked_anew = -inf
        self._traffic = traffic
        self._learning = learning
        self._tell = tell
        self._board = board
        self._policy = policy
        self._clock = clock
        self._silence = Silence(traffic.abort, after=policy.abort_after, interval=policy.probe_interval)
        self._said: tuple[type[Event], Cause] | None = None
        self._sleep: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._due = -inf
        prober.report_to(self.ask)

    async def run(self) -> None:
        """Keep reading until cancelled; an error outside of a probe is logged, and the loop goes on."""
        try:
            while True:
                try:
                    await self._read()
                    if self.prober.connected:
                        self._learning.offer(self.prober)
                    await self._pause()
                except Exception as error:
                    say(
                        logging.ERROR,
                        "watch-failed",
                        node=self.name,
                        error=words_of(error, cause_of(error), self.prober.hidden),
                    )
                    await asyncio.sleep(self._policy.probe_interval)
        finally:
            self._silence.over()
            await self.prober.close(min(self._policy.probe_timeout, self._policy.close_timeout / 2))

    def ask(self, moment: float = inf) -> None:
        """Ask for a probe that begins at `moment` or later; one in flight that did is enough."""
        if not (self._asking and self._started_at >= moment):
            self._wake_at(self._started_at + _LEAST_GAP)

    def hurry(self) -> None:
        """Ask for a newer reading than the interval would bring, at a bounded rate for all callers."""
        if not self._asking:
            self._wake_at(self._started_at + self._gap())

    def expect(self) -> None:
        """Ask for a newer reading soon, at the slowest of the rates at which sessions wait for one."""
        self._wake_at(self._started_at + _LONGEST_GAP)

    def distrust(self) -> None:
        """Probe over a new connection: a session got none, or timed out, so answers over an older one prove nothing."""
        if not self.prober.distrusted:
            self.prober.distrust()
            self._wake_at(self._asked_anew + _DISTRUST_GAP)

    @property
    def _asking(self) -> bool:
        return self.tried_at < self._started_at

    async def _read(self) -> None:
        self._started_at = started = self._clock()
        self._due = inf  # what is wanted from here on may need another probe
        if self.prober.distrusted:
            self._asked_anew = started
        try:
            reading = await self.prober.read()
        except Exception as error:
            self._failed(error)
        else:
            self._answered(reading)
        finally:
            self.tried_at = started
            self.tried.reach(started)

    def _answered(self, reading: Reading) -> None:
        self._silence.over()
        if self.shown is not None and reading.precedes(self.shown):
            # Sessions were placed by what it has shown before. Their next statement must not be answered with less.
            self._leave(WENT_BACK)
            self._report(WentBack(), WENT_BACK)
            return
        self.shown = reading
        refusal = self.prober.refusal
        cause = cause_of(refusal) if refusal is not None else None
        if cause is not None and self._shut(reading, cause):
            self._leave(cause)
        else:
            self._board.heard(self.name, reading, None)
        self._report(refusal, cause)

    def _leave(self, cause: Cause) -> None:
        """Strike the node. Reads that only wait for a connection would wait in vain; reads under way go on."""
        self._board.heard(self.name, None, cause)
        self._traffic.turn_away()

    def _shut(self, reading: Reading | None, cause: Cause) -> bool:
        """Whether to leave a node that refuses new connections, although older connections may work.

        That is so when a session, too, got no new connection, and the node is a replica: others can serve instead.
        A replica that is only full, or starting up, stays while its pools hold connections. Nothing can replace a
        primary, so its connections are used as long as they work.
        """
        if not self.prober.distrusted or reading is None or reading.role is not Role.REPLICA:
            return False
        return not (cause.kind in BUSY and self.prober.has_pooled)

    def _failed(self, error: Exception) -> None:
        cause, known = cause_of(error), self._board.reading(self.name)
        if cause.sqlstate == FORGOTTEN_STATE:
            self._traffic.pooler.doubt()
            self.distrust()
        if silent(cause):
            self._silence.begin(self._clock() - self._started_at)
        else:
            self._silence.over()
        # The node answers, and sessions hold connections to it: they report one that fails.
        believed = answered(cause) and known is not None and self.prober.in_use and not self._shut(known, cause)
        if not believed:
            self._leave(cause)
        self._report(error, cause)

    def _report(self, error: Exception | None, cause: Cause | None) -> None:
        """Tell why the node cannot be read, or refuses connections: once, until that changes."""
        if error is None or cause is None:
            self._said = None
            return
        kind = NodeUnreachable if self._board.reading(self.name) is None else NodeRefusesConnections
        if self._said != (kind, cause):
            self._said = kind, cause
            self._tell(kind(node=self.name, error=words_of(error, cause, self.prober.hidden)))

    async def _pause(self) -> None:
        """Sleep until the next probe is due.

        The time has jitter, so that many processes do not probe in step. A silent node is probed less often. Another
        node never waits longer than the interval, which bounds the time until its silence is noticed.
        """
        least, most = (1.0, 1.7) if self._silence else (0.75, 0.95)
        until = self._clock() + self._policy.probe_interval * random.uniform(least, most)  # noqa: S311 - no secret
        self._sleep = asyncio.get_running_loop().create_future()
        wanted, self._due = self._due, inf
        self._wake_at(min(until, wanted))
        if self._board.awaited(self.name):
            self.hurry()
        elif self._board.expected(self.name):
            self.expect()
        try:
            await self._sleep
        finally:
            self._sleep = None
            if self._alarm is not None:
                self._alarm.cancel()

    def _gap(self) -> float:
        """Seconds between two probes: more for a replica that is far behind, and for one that was asked in vain."""
        behind = self._board.behind(self.name)
        return min(max(behind / _PART, _GAP), _GAP * _GROWTH ** min(self._board.vain[self.name], 20), _LONGEST_GAP)

    def _wake_at(self, moment: float) -> None:
        if moment >= self._due:
            return
        self._due = moment
        if self._sleep is not None:
            if self._alarm is not None:
                self._alarm.cancel()
            left = max(0.0, moment - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(left, self._wake)

    def _wake(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)
