"""A node's pool as sessions use it: they wait in turn, for a bounded time, and are cut off when the node is silent."""

from asyncio import CancelledError, Task, current_task
from time import monotonic
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import await_only

from lagwise._client.causality import Causality, current
from lagwise._decide.failure import Failure
from lagwise._pools import sqlite
from lagwise._pools.connecting import Connecting
from lagwise._pools.connection import PooledConnection
from lagwise._pools.counters import Counters, available, capacity, checked_out, idle, patience
from lagwise._pools.driver import (
    IS_CLOSED,
    abandon,
    describe,
    failed_to_connect,
    in_hot_standby,
    is_closed,
    judge,
    never,
    not_connected,
)
from lagwise._pools.internals import OptionedEngine, drop_resets, most_overflow
from lagwise._pools.reserve import Reserve
from lagwise._pools.setup import Setup
from lagwise._pools.traffic import Traffic
from lagwise._pools.translation import cut_off, exhausted, in_recovery, translation, waits_for_itself
from lagwise._pools.turns import TurnedAway, Turns
from lagwise._pools.witness import hears_statements, watch
from lagwise.errors import NoPrimary, NotOpen, RoutingError

_MOST_CLOSED = 1000  # dead connections that one session passes over


class RoutedEngine(OptionedEngine):
    """One of a node's two pools, for sessions that read or for sessions that write."""

    def __init__(
        self, base: Engine, traffic: Traffic, counters: Counters, turns: Turns, setup: Setup | None,
        *, kind: type[PooledConnection], reads: bool,
    ) -> None:  # fmt: skip
        super().__init__(base, {})
        self.listened = hears_statements(base)
        self.traffic = traffic
        self.counters = counters
        self.turns = turns
        self.attempts = Connecting()
        self.setup = setup
        self.kind = kind
        self.reads = reads
        self.for_async = AsyncEngine(self)
        self.reserve = Reserve()
        self.fenced = reads and setup is not None
        self._closed = False
        self.pooling = traffic.pooling
        if reads and setup is None:
            sqlite.refuse_writes(self)

    def connect(self) -> PooledConnection:
        """A connection from the pool, fit for this use.

        Raises:
            NotConnected: a read got no connection, and may run elsewhere.
            NoPrimary: a write got none; or the node has said that it is not the primary any more.
            WaitsForItself: the task holds two connections already, wants a third, and there is none.
            sqlalchemy.exc.TimeoutError: the pool is exhausted; the message names it and its numbers.
        """
        self.hear()
        if self._closed:
            raise self._not_open()
        task: Any = current_task()
        request, counters, reserved = current(), self.counters, False
        if counters.waiting or not idle(self.pool):
            reserved = self._wait(task, request)
        else:
            counters.wait_time.add_none()
        try:
            # Also what is idle may have to be connected: what was invalidated, or is too old, left an empty place.
            self.attempts.begin(task, self.traffic.connect_timeout)
            connection = self._take_reserve() if reserved else self.kind(self)
            if connection.info.get(IS_CLOSED, never)():  # in place of pool_pre_ping, which is a round trip
                connection = self._another(connection)
            self.attempts.end(task)
        except BaseException as error:
            self._failed(error, task)
            raise
        connection.task, connection.request, connection.since = task, request, monotonic()
        counters.out.add(connection)
        if self.listened or self.pool.dispatch.checkout:
            watch(connection)
        if self.fenced:
            adapter: Any = connection.connection.dbapi_connection
            if adapter.isolation_level != self.pooling.level or adapter.readonly != self.pooling.framed:
                self._settle(connection, adapter)
        elif not self.reads and self.pooling.keeps and in_hot_standby(connection):
            connection.invalidate()
            connection.close()
            self.traffic.lost("Demoted")
            raise in_recovery(self.traffic.name)
        return connection

    def _settle(self, connection: PooledConnection, adapter: Any) -> None:
        if not connection.transaction_asked:  # by a listener, at its checkout
            drop_resets(connection)  # an option of the owner's engine has set an isolation level, for writes
            self.pooling.settle(self.dialect, adapter)

    def listen(self) -> None:
        """Watch each connection from here on: the application listens where an engine hears nothing of it."""
        self.listened = True

    def close(self) -> None:
        """Refuse each connection from now on; a session that is turned away, or cut off, hears `NotOpen`."""
        self._closed = True
        self.attempts.close()

    def _not_open(self) -> NotOpen:
        return NotOpen(f"the Router was closed before this session got a connection to {self.traffic.name}")

    def _wait(self, task: Task[Any], request: Causality | None) -> bool:
        """Wait for the session's turn, unless a connection is available; whether to use the reserve then."""
        pool = self.pool
        if not self.counters.waiting and available(pool):
            self.counters.wait_time.add_none()
            return False
        using = [one for one in self.counters.in_use() if isinstance(one, PooledConnection)]
        held = sum(one.task is task for one in using)
        if held > 1 and not available(pool):
            self.counters.refuse()
            raise waits_for_itself(self.traffic.name, held, capacity(self.pool))
        kin = held > 0 or (request is not None and any(one.request is request for one in using))
        try:
            with self.counters.pending():
                await_only(
                    self.turns.wait(lambda: available(pool), self.reserve.free, patience(pool), first=held > 0, kin=kin)
                )
        except TimeoutError as error:
            raise self._exhausted() from error
        except TurnedAway as error:
            if self._closed:
                raise self._not_open() from None
            raise not_connected(
                f"{self.traffic.name} does not answer, and gave this read no connection. Retry.",
                error,
                on_replica=self.traffic.in_recovery(),
            ) from None
        if available(pool):
            return False
        self.reserve.promise()
        return True

    def _exhausted(self) -> PoolTimeout:
        self.counters.give_up()
        return exhausted(self.traffic.name, checked_out(self.pool), capacity(self.pool), self.counters.timeouts)

    def _take_reserve(self) -> PooledConnection:
        return self.reserve.take(self.pool, lambda pool: self.kind(self, pool.connect()))

    def _another(self, connection: PooledConnection) -> PooledConnection:
        """Another connection in place of one that the driver knows to be closed; replaces pool_pre_ping."""
        for _ in range(_MOST_CLOSED):
            connection.invalidate()
            connection.close()
            connection = self.kind(self)
            if not is_closed(connection):
                return connection
        raise ConnectionError("new connections are closed at once")

    def _failed(self, error: BaseException, task: Task[Any]) -> None:
        """Wake the next session in line, and raise a failure to connect in lagwise's own words."""
        if self.setup is not None:
            self.setup.give_up(task)
        if self.attempts.timed_out(task) and isinstance(error, CancelledError):
            error = TimeoutError()
        self.turns.go_on()
        if self._closed and isinstance(error, Exception):
            raise self._not_open() from error
        if isinstance(error, PoolTimeout):
            raise self._exhausted() from error
        if isinstance(error, RoutingError) or not isinstance(error, Exception) or not failed_to_connect(error):
            return
        self.traffic.suspect(type(getattr(error, "orig", None) or error).__name__)
        said = f"refused a new connection: {describe(error)}"
        if isinstance(error, TimeoutError):
            self.traffic.turn_away()
            said = f"gave no new connection within {self.traffic.connect_timeout:g} s"
        if self.reads:
            on_replica = self.traffic.in_recovery()
            raise not_connected(f"{self.traffic.name} {said}. Retry.", error, on_replica=on_replica) from error
        raise NoPrimary(f"{self.traffic.name} {said}; nothing was written. Retry.") from error

    @property
    def gives_back_silently(self) -> bool:
        """Whether its pool takes a connection back without sending anything, and without listeners that may send."""
        listeners = self.pool.dispatch
        sends = self.pooling.framed or listeners.reset or len(listeners.checkin) > 1  # one is ours
        return most_overflow(self.pool) == 0 and not sends

    def report_failure(self, error: BaseException, connection: Connection | None) -> bool:
        """Tell the monitor what a failed statement means for the node; whether the connection is gone."""
        failure = judge(error, on_replica=self._on_replica(connection))
        name = type(getattr(error, "orig", None) or error).__name__
        if failure is Failure.LOST:
            self.traffic.lost(name)
        elif failure is Failure.TIMEOUT:
            # A slow statement or a silent node: a probe tells. One slow statement must not end other sessions.
            self.traffic.suspect(name)
            if self.reads and connection is not None:
                # SQLAlchemy would close gracefully, and wait up to 2 s for a node that may not answer.
                abandon(connection)
        elif failure is Failure.FORGOTTEN and isinstance(connection, PooledConnection):
            connection.touched = connection.spoilt = True  # a reset may run in a server process of another client's
            self.traffic.forgotten(name)
        elif self.reads and isinstance(connection, PooledConnection):
            # asyncpg parses a statement before it looks at its arguments. When it refuses those, or a cursor,
            # the server is left in a transaction that the driver does not know of, with its locks.
            connection.touched, connection.failed = connection.touched or self.fenced, True
            sqlite.allow_writes(connection)
        if failure is Failure.READ_ONLY and not self.reads and connection is not None:
            gone = self._demoted(connection)
            (self.traffic.lost if gone else self.traffic.suspect)("Demoted")
            return gone
        return failure is Failure.LOST

    def translated(self, error: BaseException, connection: Connection | None) -> RoutingError | None:
        """The error that says to the caller what the database's own does not, or None.

        `ReadOnly` for a write in a read session, `NoPrimary` for a write on a node that is silent, or no longer the
        primary, `RoutingError` for a savepoint or a cursor where there is no transaction.
        """
        if not self.reads and getattr(connection, "undone", False):
            return cut_off(self.traffic.name)
        failure = judge(error, on_replica=self._on_replica(connection))
        gone = failure is Failure.READ_ONLY and connection is not None
        gone = gone and (self.pooling.framed or self._demoted(connection))
        return translation(failure, self.traffic.name, reads=self.reads, demoted=gone)

    def _demoted(self, connection: Connection | None) -> bool:
        return connection is not None and self.pooling.keeps and in_hot_standby(connection) is True

    def _on_replica(self, connection: Connection | None) -> bool:
        said = None
        if connection is not None and not connection.closed and not connection.invalidated and self.pooling.keeps:
            said = in_hot_standby(connection)
        return self.traffic.in_recovery() if said is None else said
