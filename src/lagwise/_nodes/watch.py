"""The reading loop of one node: when it is asked, what an answer, a refusal and silence mean, and who restarts it."""

import asyncio
import logging
import random
from collections.abc import Callable
from math import inf

from lagwise._decide.events import Event, NodeRefusesConnections, NodeUnreachable, Watcher
from lagwise._decide.failure import Cause, cause_of
from lagwise._decide.view import Reading, Role
from lagwise._nodes.board import Board
from lagwise._nodes.learning import Learning
from lagwise._nodes.prober import Prober
from lagwise._nodes.refusal import BUSY, answered, silent, words_of
from lagwise._nodes.say import say
from lagwise._nodes.silence import Silence
from lagwise._nodes.waiting import Queue
from lagwise._pools.traffic import Traffic
from lagwise.policy import Policy

_LEAST_GAP = 0.001  # seconds between the beginnings of any two probes of a node
_GAP, _LONGEST_GAP = 0.002, 0.1  # seconds between two probes of a node that readers wait for, however many wait
_GROWTH = 1.5  # of that gap, for each probe that brought nothing to those who wait
_DOUBT_GAP = 0.1  # seconds between two new connections made because sessions were refused theirs
_PART = 16  # how often, at most, a replica is asked in the time that it is behind


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
        """Those who wait for a probe sent at a moment, or later, to end: well or badly."""
        self.tried_at = -inf
        """When the latest probe that has ended, well or badly, was begun."""
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
        prober.lost = self.ask

    async def run(self) -> None:
        """Keep reading until cancelled; what fails outside of a probe is said, and the loop goes on."""
        try:
            while True:
                try:
                    await self._read()
                    if self.prober.connected:
                        await self._learning.from_node(self.prober)
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
        """Want a probe that begins after `moment`; one in flight that did will do."""
        if not (self._asking and self._started_at >= moment):
            self._wake_at(self._started_at + _LEAST_GAP)

    def hurry(self) -> None:
        """Want a newer reading than the interval would bring; paced for all who ask."""
        if not self._asking:
            self._wake_at(self._started_at + self._gap())

    def doubt(self) -> None:
        """A session was refused a new connection: what an older connection answers proves nothing now."""
        if not self.prober.doubted:
            self.prober.doubted = True
            self._wake_at(self._asked_anew + _DOUBT_GAP)

    @property
    def _asking(self) -> bool:
        return self.tried_at < self._started_at

    async def _read(self) -> None:
        self._started_at = started = self._clock()
        self._due = inf  # what is wanted from here on may need another probe
        if self.prober.doubted:
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
        refusal = self.prober.refusal
        cause = cause_of(refusal) if refusal is not None else None
        if cause is not None and self._shut(reading, cause):
            # Its reads that only wait for a connection would wait in vain; those under way go on.
            self._board.heard(self.name, None, cause)
            self._traffic.turn_away()
        else:
            self._board.heard(self.name, reading, None)
        self._report(refusal, cause)

    def _shut(self, reading: Reading | None, cause: Cause) -> bool:
        """Whether a node that lets no connection in is to be left, though older connections may work.

        Sessions have met that. A replica has others in its place, unless it is only full and those it has let in
        are served. A primary has no other in its place: what its connections can do, they do.
        """
        if not self.prober.doubted or reading is None or reading.role is not Role.REPLICA:
            return False
        return not (cause.kind in BUSY and self.prober.has_pooled)

    def _failed(self, error: Exception) -> None:
        cause, known = cause_of(error), self._board.reading(self.name)
        if silent(cause):
            self._silence.begin(self._clock() - self._started_at)
        else:
            self._silence.over()
        # It answers, and sessions hold connections that work as far as is known: they report it when one does not.
        believed = answered(cause) and known is not None and self.prober.in_use and not self._shut(known, cause)
        if not believed:
            self._board.heard(self.name, None, cause)
            self._traffic.turn_away()
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

        Jitter, so that many processes do not probe in step; a node that is silent is asked less often. Else never
        longer than the interval: from a node's silence to its first unanswered probe no more may pass.
        """
        least, most = (1.0, 1.7) if self._silence else (0.75, 0.95)
        until = self._clock() + self._policy.probe_interval * random.uniform(least, most)  # noqa: S311 - no secret
        self._sleep = asyncio.get_running_loop().create_future()
        wanted, self._due = self._due, inf
        self._wake_at(min(until, wanted))
        if self._board.awaited(self.name):
            self.hurry()
        try:
            await self._sleep
        finally:
            self._sleep = None
            if self._alarm is not None:
                self._alarm.cancel()

    def _gap(self) -> float:
        """The more a replica is behind, and the longer in vain it was asked, the less often it is worth asking."""
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
