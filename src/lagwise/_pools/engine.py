"""One way of using a node's pool, and the reads in flight there, which can be cut off when the node is silent."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import await_only

from lagwise._decide.failure import Failure
from lagwise._pools import sqlite
from lagwise._pools.connection import PooledConnection, WritingConnection, taken
from lagwise._pools.counters import Tally, capacity, checked_out, idle, overflow
from lagwise._pools.driver import abandon, demoted, judge
from lagwise.errors import NoPrimary, ReadOnly, RoutingError


class Traffic:
    """The reads in flight at one node, and whom to tell when it is lost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost: Callable[[str], None] = lambda _error: None
        self.in_flight: WeakSet[Connection] = WeakSet()
        self._connecting: dict[asyncio.Timeout, bool] = {}

    def abort(self) -> None:
        """The node is silent: cut off the reads that wait for it, so that they can run elsewhere."""
        for connection in list(self.in_flight):
            if not connection.closed:
                abandon(connection)
        self._end(self._connecting)

    def turn_away(self) -> None:
        """The node has not answered somebody: a replica's reads that only wait for a connection go elsewhere."""
        self._end([connecting for connecting, on_replica in self._connecting.items() if on_replica])

    @staticmethod
    def _end(waiting: Iterable[asyncio.Timeout]) -> None:
        now = asyncio.get_running_loop().time()
        for connecting in waiting:
            if not connecting.expired():  # ended a moment ago: its task has yet to hear of it
                connecting.reschedule(now)

    @contextmanager
    def abortable(self, *, on_replica: bool) -> Iterator[None]:
        """Opening a connection, or waiting for one, with no limit of its own until somebody sets one."""
        connecting = asyncio.timeout(None)
        await_only(connecting.__aenter__())
        self._connecting[connecting] = on_replica
        try:
            yield
        except BaseException as error:
            del self._connecting[connecting]
            await_only(connecting.__aexit__(type(error), error, error.__traceback__))
            raise
        del self._connecting[connecting]
        await_only(connecting.__aexit__(None, None, None))


class RoutedEngine(OptionEngine):
    """One way of using a node's pool: read-only or not, one transaction or none."""

    # SQLAlchemy asks for it six times a statement, an OptionEngine asks its parent each time.
    _has_events = False

    def __init__(
        self,
        base: Engine,
        options: Mapping[str, Any],
        traffic: Traffic,
        tally: Tally,
        *,
        kind: type[PooledConnection],
        on_replica: bool = False,
    ) -> None:
        super().__init__(base, dict(options))
        self.traffic = traffic
        self.tally = tally
        self.kind = kind
        self.reads = kind is not WritingConnection
        self.on_replica = on_replica
        self.for_async = AsyncEngine(self)
        if self.reads and self.dialect.name != "postgresql":
            sqlite.refuse_writes(self)

    def connect(self) -> PooledConnection:
        """A connection from the pool, fit for this use.

        Raises:
            NoPrimary: the node has said that it is not the primary any more.
            sqlalchemy.exc.TimeoutError: the pool is exhausted; the message names it and its numbers.
        """
        if self._proxied._has_events:  # somebody may have begun to listen to it meanwhile
            self._has_events = True
        try:
            if idle(self.pool) and not self.tally.waiting:
                connection = taken(self.kind, self, fenced=self.on_replica)
            else:
                connection = self._in_turn()
        except PoolTimeout as error:
            self.tally.timeouts += 1
            raise PoolTimeout(
                f"no connection to {self.traffic.name} became free in time: {checked_out(self.pool)} of "
                f"{capacity(self.pool):g} are in use, {self.tally.timeouts} sessions have given up; "
                "sessions are held too long, or pool_size is too small"
            ) from error
        except Exception as error:
            # These come straight from the socket or the driver, past every event of SQLAlchemy's.
            if judge(error, on_replica=self.on_replica) in {Failure.LOST, Failure.TIMEOUT}:
                self.traffic.lost(type(error).__name__)
            raise
        if self.reads:
            self.traffic.in_flight.add(connection)
        elif demoted(connection):
            connection.invalidate()
            connection.close()
            self.traffic.lost("Demoted")
            raise NoPrimary(
                f"{self.traffic.name} is in recovery: it is not the primary any more; nothing was sent. Retry."
            )
        return connection

    def _in_turn(self) -> PooledConnection:
        """One that must be opened, or waited for behind those who came first."""
        while self.tally.waiting and idle(self.pool):
            await_only(asyncio.sleep(0))  # it is for those who came first: the pool itself would let us push in
        at_once = idle(self.pool)
        waits = not at_once and capacity(self.pool) <= checked_out(self.pool)
        self.tally.waits += waits
        self.tally.waiting += waits
        try:
            abortable = self.reads and not at_once
            with self.traffic.abortable(on_replica=self.on_replica) if abortable else nullcontext():
                return taken(self.kind, self, fenced=self.on_replica)
        finally:
            self.tally.waiting -= waits

    @property
    def gives_back_silently(self) -> bool:
        """Whether its pool takes a connection back without a word to the server, and to anyone who might send one."""
        pool = self.pool
        heard = pool.dispatch.reset or pool.dispatch.checkin
        return not heard and overflow(pool) == 0  # one too many is closed

    def lost_by(self, error: BaseException, connection: Connection | None) -> bool:
        """Say what a failed statement means for the node, and for a commit in doubt; whether the connection is gone."""
        failure = judge(error, on_replica=self.on_replica)
        if failure in {Failure.LOST, Failure.TIMEOUT}:
            self.traffic.lost(type(getattr(error, "orig", error)).__name__)
            if failure is Failure.TIMEOUT and self.reads and connection is not None:
                # SQLAlchemy would say goodbye to a node that does not answer, and wait for it: up to 2 s.
                abandon(connection)
                self.traffic.turn_away()
        elif isinstance(connection, WritingConnection):
            connection.failed(error)
        elif isinstance(connection, PooledConnection):
            # asyncpg parses a statement before it looks at its arguments. When it refuses those, or a cursor,
            # the server is left in a transaction that the driver does not know of, with its locks.
            connection.touched = connection.touched or self.on_replica
            sqlite.allow_writes(connection)
        if failure is Failure.READ_ONLY and not self.reads and connection is not None and demoted(connection):
            self.traffic.lost("Demoted")
            return True
        return failure is Failure.LOST

    def named(self, error: BaseException, connection: Connection | None) -> RoutingError | None:
        """The error that says to the caller what the database's own does not, or None.

        `ReadOnly` for a write in a read session, `NoPrimary` for a write on a node that is no longer the primary,
        `RoutingError` for a savepoint or a cursor where there is no transaction.
        """
        failure = judge(error, on_replica=self.on_replica)
        if failure is Failure.READ_ONLY and self.reads:
            return ReadOnly(
                f"a read session on {self.traffic.name} attempted a write, or what only a primary can do, "
                "and the database refused it. "
                "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."
            )
        if failure is Failure.READ_ONLY and connection is not None and demoted(connection):
            return NoPrimary(
                f"{self.traffic.name} is in recovery: it is not the primary any more and refused the write. Retry."
            )
        if failure is Failure.NO_TRANSACTION and self.on_replica:
            return RoutingError(
                "a savepoint or a server-side cursor needs a transaction, and plain reads run without one; "
                "open the session with db.read(snapshot=True), in FastAPI reads(snapshot=True)."
            )
        return None
