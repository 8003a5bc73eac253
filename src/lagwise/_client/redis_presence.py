"""This process among those that share a Redis: whether it is heard of, and what it could not store.

The race: this process cannot store a position, answers its client all the same, and another process, which can reach
Redis, finds nothing there and reads from a replica. So each process has a lease in Redis, which it renews. A write that
could not be stored is acknowledged when the lease has run out: from then on every other process finds a silent one,
and sends the reads of principals to the primary. The lease is renewed again when all has been stored that could not be.

The second race: a failover of Redis, and for a while this process stores in the old server what others ask the new one
for, or the reverse. So every answer says which server it is from. A process that meets another one than before waits
until its lease there has run out, and acknowledges nothing before; then it asks for a lease here, with which the memory
of this server counts as incomplete for a window, because what the process has stored elsewhere may be missing.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from lagwise._client.doubts import doubt
from lagwise._client.redis_scripts import BEAT, LEAVE, RECALL, REMEMBER, decoded, parts_of, token_of
from lagwise._client.signature import Seal
from lagwise._client.store import MARGIN, kept_for
from lagwise._client.store_log import StoreLog
from lagwise._client.unsaved import Unsaved
from lagwise._decide.token import CausalToken
from lagwise.errors import InvalidToken

# A silent process is taken for dead after so many seconds, or after a sticky window if that is longer: what it has
# acknowledged and not stored is on every replica in rotation by then. It is forgotten after an hour.
PATIENCE = 30.0
FORGOTTEN = 3600.0
_BEATS = 4  # in a lease
_MOST_UNSAVED = 10_000


class AnotherServer(Exception):  # noqa: N818 - the event, not a type of error
    """An answer came from another server than the one that has this process's lease."""


class Presence:
    """This process as a member of a store, in one event loop, from its first use until `leave`."""

    def __init__(self, redis: Any, *, timeout: float, lease: float, keep: float, prefix: str) -> None:
        self._redis = redis
        self._timeout = timeout
        self._lease = lease
        self._keep = keep
        # In braces: all keys are on one node of a Redis Cluster.
        self._run, self._processes = f"{{{prefix}}}:run", f"{{{prefix}}}:processes"
        self._principal = f"{{{prefix}}}:principal:"
        self._recall, self._remember = map(redis.register_script, (RECALL, REMEMBER))
        self._beat, self._bye = map(redis.register_script, (BEAT, LEAVE))
        self._me = secrets.token_hex(8)
        self._reachable = True
        self._window = 0.0
        self._log = StoreLog()
        self._unsaved: dict[str, Unsaved] = {}
        self._dropped = self._leaving = False
        self._joined = asyncio.Event()
        # The server that this process is with, and until when it, and the one before, may say that this process is
        # heard of: monotonic seconds.
        self._server = ""
        self._lapses_at = self._left_at = 0.0
        # The server's clock in milliseconds, and when its answer came: monotonic seconds.
        self._server_clock: tuple[int, float] | None = None
        # The first request makes this task, which outlives it: its trace, its causality and the rest end with it.
        self._heart = asyncio.create_task(self._keep_beating(), context=Context(), name="lagwise-store")

    async def recall(self, name: str, seal: Seal, window: float) -> CausalToken:
        """What the store holds, and what this process could not store; with a doubt unless that is all there is."""
        self._window = max(self._window, window)
        unsaved = self._unsaved.get(name)
        known = unsaved.token if unsaved is not None else CausalToken()
        if not self._reachable:
            return known.including([doubt()])
        trusted = spoilt = False
        try:
            async with asyncio.timeout(self._timeout):
                await self._joined.wait()
                keys = [self._run, self._processes, self._principal + name]
                answer = self._recall(keys, [self._me, self._patience])
                age, silent, spoilt, fields = await self._same_server(answer)
            trusted = self._judge(int(age), int(silent))
            try:
                known = known.merge(token_of([decoded(each) for each in fields], seal))
            except (InvalidToken, ValueError):
                spoilt = True
        except Exception as error:  # whatever a client library raises, and whatever is not our answer
            if self._joined.is_set():  # otherwise the process has just started, and is still connecting
                self._fail(error)
        return known if trusted and not spoilt else known.including([doubt()])

    async def remember(self, name: str, token: CausalToken, seal: Seal, window: float) -> None:
        """Store a token; if that fails, return when no other process relies on this one."""
        if self._reachable and name not in self._unsaved:
            try:
                await self._store(name, token, seal, window)
            except Exception as error:
                self._fail(error)
            except BaseException:
                self._put_aside(name, token, seal, window)
                raise
            else:
                return
        aside = self._put_aside(name, token, seal, window)
        # No lease is asked for while something is put aside, so this time does not grow.
        left = self._lapses_at - time.monotonic()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await aside.wait()

    async def leave(self) -> None:
        """End the lease at once if all is stored, within the lease's time; otherwise let it run out."""
        # A client library may swallow a cancellation that arrives together with an error.
        self._leaving = True
        self._heart.cancel()
        await asyncio.wait({self._heart})
        with contextlib.suppress(Exception):
            # When the lease is over, other processes take this one for silent anyway.
            async with asyncio.timeout(self._lease):
                await self._empty()
            if not self._unsaved and not self._dropped:
                await self._bounded(lambda: self._bye([self._processes], [self._me, self._server]))

    async def _keep_beating(self) -> None:
        while not self._leaving:
            try:
                await self._empty()
                given = await self._renew()
                if not given and not self._joined.is_set() and not self._unsaved:
                    given = await self._renew()  # the first answer told the server's clock
                if given:
                    self._reachable = True
                    self._joined.set()
            except Exception as error:
                self._fail(error)
            await asyncio.sleep(self._lease / _BEATS)

    async def _empty(self) -> None:
        """Store what could not be stored before; raises when that fails again."""
        # The race: a write would count as stored here, while other processes ask the server before, and rely on it.
        await asyncio.sleep(self._left_at - time.monotonic())
        while self._unsaved:
            name, unsaved = next(iter(self._unsaved.items()))
            token = unsaved.token
            if time.monotonic() < unsaved.until:
                await self._store(name, token, unsaved.seal, unsaved.window)
            if unsaved.token is token:
                del self._unsaved[name]
                unsaved.saved.set()

    async def _renew(self) -> bool:
        """Ask for a lease; the first time the server's clock alone, so that no request can arrive late."""
        sent, clock, patience = time.monotonic(), self._server_clock, self._lease / _BEATS
        lease = latest = 0
        if clock is not None:
            lease = _milliseconds(self._lease - patience)
            latest = clock[0] + _milliseconds(sent - clock[1] + patience)
            # The race: this request stays in a buffer, and gives a lease when Redis wakes. After `latest` it cannot.
            self._lapses_at = max(self._lapses_at, sent + self._lease)
        dropped, self._dropped, given = self._dropped, False, 0
        arguments = [
            self._me,
            lease,
            latest,
            int(dropped),
            self._patience,
            max(2 * self._patience, _milliseconds(FORGOTTEN)),
            self._server,
        ]
        try:
            now, given, age, silent = await self._bounded(
                lambda: self._same_server(self._beat([self._run, self._processes], arguments))
            )
        finally:
            self._dropped = self._dropped or (dropped and not given)
        self._server_clock = int(now), time.monotonic()
        self._judge(int(age), int(silent))
        return bool(given)

    async def _store(self, name: str, token: CausalToken, seal: Seal, window: float) -> None:
        lasting, key = _milliseconds(kept_for(window, self._keep)), [self._principal + name]
        for spoilt in (0, 1):
            # The second time something else is there, or too much: a doubt covers whatever it was.
            arguments = [lasting, spoilt, *parts_of(token.including([doubt()]) if spoilt else token, seal)]
            (merged,) = await self._bounded(lambda: self._same_server(self._remember(key, arguments)))  # noqa: B023
            if int(merged) == 1:
                return

    async def _same_server(self, asked: Awaitable[Any]) -> list[Any]:
        """What a script answers, without the server, which must be the one that this process is with.

        Raises:
            AnotherServer: it is not, or this process has left it meanwhile; it is with the other one from now on.
        """
        before = self._server
        answer: list[Any] = await asked
        here = decoded(answer.pop())
        left, self._server = self._server not in {"", here}, here
        if left:
            self._server_clock, self._left_at = None, self._lapses_at
            self._reachable, self._dropped = False, True
        if left or before not in {"", here}:
            raise AnotherServer
        return answer

    async def _bounded(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(self._timeout):
            return await ask()

    def _put_aside(self, name: str, token: CausalToken, seal: Seal, window: float) -> asyncio.Event:
        """Keep what could not be stored, for as long as anything may need it; answers what is set when it is stored."""
        until = time.monotonic() + kept_for(window, self._keep)
        aside = self._unsaved.get(name)
        if aside is not None:
            aside.add(token, window, until)
            return aside.saved
        if len(self._unsaved) >= _MOST_UNSAVED:
            # The next lease begins a new run: all that is stored counts as incomplete for a window.
            self._dropped = True
            return asyncio.Event()
        self._unsaved[name] = aside = Unsaved(token, seal, window, until)
        return aside.saved

    def _judge(self, age: int, silent: int) -> bool:
        """Whether what the store holds is all that was acknowledged during the last window."""
        if silent:
            self._log.lost("a process is silent")
        elif age < _milliseconds(self._window + MARGIN):
            self._log.lost("it has not been there for a whole window")
        else:
            self._log.back()
            return True
        return False

    @property
    def _patience(self) -> int:
        return _milliseconds(max(PATIENCE, self._window + self._lease + MARGIN))

    def _fail(self, error: Exception) -> None:
        self._reachable = False
        self._log.lost(type(error).__name__)


def _milliseconds(seconds: float) -> int:
    return int(-(-seconds * 1000 // 1))
