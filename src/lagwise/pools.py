"""The pools through which one node is reached, and the ways of using them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool
from sqlalchemy.util.concurrency import await_only

from lagwise import sqlite
from lagwise.connection import (
    abandon,
    announce_commit,
    capacity,
    checked_out,
    close_touched,
    demoted,
    drop_closed,
    fence,
    hear_failure,
    idle,
    judge,
    reset_touched,
    watch_statement,
)
from lagwise.errors import NoPrimary, ReadOnly, RoutingError
from lagwise.failure import Failure

_ROLES = ("writing", "reading")
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
# Measured with asyncpg: SQLAlchemy's default of 5 + 10 opens and closes a connection per request under load.
DEFAULTS: Mapping[str, Any] = {"pool_size": 20, "max_overflow": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica with more to say than its URL: `weight=2` takes twice the share of reads of `weight=1`."""

    __module__ = "lagwise"

    url: str | URL | AsyncEngine
    weight: float = 1.0

    def __init__(self, url: str | URL | AsyncEngine, *, weight: float = 1.0) -> None:
        if not (isinstance(weight, int | float) and 0 < weight < float("inf")):
            raise ValueError(f"weight must be a number above 0, not {weight!r}; to stop reads use db.drain(name)")
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "weight", float(weight))


@dataclass(slots=True)
class Tally:
    """What happened at one pool since the Router was made: counts."""

    waits: int = 0
    timeouts: int = 0
    opened: int = 0


class RoutedEngine(OptionEngine):
    """One way of using a node's pool: read-only or not, one transaction or none."""

    def __init__(
        self, pools: "Pools", base: Engine, options: Mapping[str, Any], *, reads: bool, on_replica: bool
    ) -> None:
        super().__init__(base, dict(options))
        self.pools = pools
        self.reads = reads
        self.on_replica = on_replica
        self.tally = pools.tallies["reading" if on_replica else "writing"]
        if reads and pools.is_postgresql:
            event.listen(self, "before_cursor_execute", watch_statement)
        elif reads:
            sqlite.refuse_writes(self)
        else:
            event.listen(self, "commit", announce_commit)
            event.listen(self, "commit_twophase", announce_commit)

    def connect(self) -> Connection:
        """A connection from the pool, fit for this use.

        Raises:
            NoPrimary: the node has said that it is not the primary any more.
            sqlalchemy.exc.TimeoutError: the pool is exhausted; the message names it and its numbers.
        """
        most, out = capacity(self.pool), checked_out(self.pool)
        if most <= out:
            self.tally.waits += 1
        try:
            if self.reads and not idle(self.pool):
                with self.pools.abortable():
                    connection = self._connected()
            else:
                connection = self._connected()
        except PoolTimeout as error:
            self.tally.timeouts += 1
            raise PoolTimeout(
                f"no connection to {self.pools.name} became free in time: {out} of {most:g} are in use, "
                f"{self.tally.timeouts} sessions have given up; sessions are held too long, or pool_size is too small"
            ) from error
        except Exception as error:
            # These come straight from the socket or the driver, past every event of SQLAlchemy's.
            if judge(error, on_replica=self.on_replica) in {Failure.LOST, Failure.TIMEOUT}:
                self.pools.lost(type(error).__name__)
            raise
        if self.reads:
            self.pools.in_flight.add(connection)
        elif demoted(connection):
            connection.invalidate()
            connection.close()
            self.pools.lost("Demoted")
            raise NoPrimary(
                f"{self.pools.name} is in recovery: it is not the primary any more; nothing was sent. Retry."
            )
        return connection

    def _connected(self) -> Connection:
        connection = super().connect()
        if self.on_replica:
            fence(connection)
        return connection


class Pools:
    """One node's engines. Made from a URL they are the Router's own; an AsyncEngine stays its owner's.

    A node may change its role, so it has a pool to read from as a replica and one to write to as the
    primary; the one it does not need stays empty.
    """

    def __init__(
        self,
        name: str,
        target: str | URL | AsyncEngine,
        *,
        weight: float,
        configured_primary: bool,
        options: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.weight = weight
        self.tallies = {role: Tally() for role in _ROLES}
        self.lost: Callable[[str], None] = lambda _error: None
        self.in_flight: WeakSet[Connection] = WeakSet()
        self._connecting: set[asyncio.Timeout] = set()
        self._given = target if isinstance(target, AsyncEngine) else None
        self._url = target.url if isinstance(target, AsyncEngine) else make_url(target)
        self._configured_primary = configured_primary
        self._template: Pool | None = None
        self._options = {**(DEFAULTS if self.is_postgresql else {}), **options}
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []

    @property
    def is_postgresql(self) -> bool:
        """Whether this is a PostgreSQL server: the only kind that has replicas here."""
        return self._url.get_backend_name() == "postgresql"

    @cached_property
    def monitoring(self) -> AsyncEngine:
        """The engine that the monitor's one connection comes from."""
        if self._given is not None:
            return self._twin(self._given)
        return create_async_engine(self._url, **self._options)

    @cached_property
    def writing(self) -> AsyncEngine:
        """The engine of the primary's role."""
        if self._given is not None:
            return self._listen(self._given if self._configured_primary else self._twin(self._given), "writing")
        return self._listen(create_async_engine(self._url, **self._options), "writing")

    @cached_property
    def reading(self) -> AsyncEngine:
        """The engine of the replica's role: no BEGIN, no ROLLBACK, one round trip."""
        if self._given is not None:
            return self._listen(self._twin(self._given) if self._configured_primary else self._given, "reading")
        options = {**self._options, "isolation_level": "AUTOCOMMIT"}
        return self._listen(create_async_engine(self._url, **options), "reading")

    @cached_property
    def writes(self) -> RoutedEngine:
        """Sessions that may write."""
        return RoutedEngine(self, self.writing.sync_engine, {}, reads=False, on_replica=False)

    @cached_property
    def replica_reads(self) -> RoutedEngine:
        """Reads on a replica, statement by statement."""
        options = {} if self._given is None else {"isolation_level": "AUTOCOMMIT"}
        return RoutedEngine(self, self.reading.sync_engine, options, reads=True, on_replica=True)

    @cached_property
    def replica_snapshots(self) -> RoutedEngine:
        """Reads on a replica, in one snapshot."""
        return RoutedEngine(self, self.reading.sync_engine, _SNAPSHOT, reads=True, on_replica=True)

    @cached_property
    def primary_reads(self) -> RoutedEngine:
        """Reads on the primary, in a transaction that refuses writes."""
        options = {"isolation_level": "READ COMMITTED", "postgresql_readonly": True} if self.is_postgresql else {}
        return RoutedEngine(self, self.writing.sync_engine, options, reads=True, on_replica=False)

    @cached_property
    def primary_snapshots(self) -> RoutedEngine:
        """Reads on the primary, in one snapshot."""
        options = _SNAPSHOT if self.is_postgresql else {}
        return RoutedEngine(self, self.writing.sync_engine, options, reads=True, on_replica=False)

    def load(self) -> int:
        """Sessions in flight that hold a connection for reads."""
        return checked_out(self.reading.sync_engine.pool)

    def abort(self) -> None:
        """The node is silent: cut off the reads that wait for it, so that they can run elsewhere."""
        for connection in list(self.in_flight):
            if not connection.closed:
                abandon(connection)
        now = asyncio.get_running_loop().time()
        for connecting in self._connecting:
            connecting.reschedule(now)

    @contextmanager
    def abortable(self) -> Iterator[None]:
        """Opening a connection, or waiting for one, with no limit of its own until `abort()` sets one."""
        connecting = asyncio.timeout(None)
        await_only(connecting.__aenter__())
        self._connecting.add(connecting)
        try:
            yield
        except BaseException as error:
            self._connecting.discard(connecting)
            await_only(connecting.__aexit__(type(error), error, error.__traceback__))
            raise
        self._connecting.discard(connecting)
        await_only(connecting.__aexit__(None, None, None))

    def in_use(self) -> dict[str, AsyncEngine]:
        """The engines that exist so far, by role: writing, reading."""
        return {role: self.__dict__[role] for role in _ROLES if role in self.__dict__}

    async def close(self) -> None:
        """Stop listening to the owner's engine and dispose of the Router's own."""
        for target, name, listener in self._listening:
            event.remove(target, name, listener)
        self._listening.clear()
        for engine in (*self.in_use().values(), self.monitoring):
            if engine is not self._given:
                await engine.dispose()
        for name in [name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def _twin(self, engine: AsyncEngine) -> AsyncEngine:
        """An engine like the owner's, with its connect arguments and credentials callbacks, and a pool apart."""
        return create_async_engine(engine.url, pool=self._blank(engine).recreate())

    def _blank(self, engine: AsyncEngine) -> Pool:
        """The owner's pool as it came: a pool made from a listened-to one would inherit our listeners."""
        if self._template is None:
            self._template = engine.sync_engine.pool.recreate()
        return self._template

    def _listen(self, engine: AsyncEngine, role: str) -> AsyncEngine:
        owned, tally = engine is not self._given, self.tallies[role]
        if not owned:
            self._blank(engine)

        def opened(_connection: Any, _record: Any) -> None:
            tally.opened += 1

        for target, name, listener in (
            (engine.sync_engine.pool, "connect", opened),
            (engine.sync_engine.pool, "checkout", drop_closed),
            (engine.sync_engine.pool, "reset", reset_touched if owned else close_touched),
            (engine.sync_engine, "handle_error", self._failed),
        ):
            event.listen(target, name, listener)
            self._listening.append((target, name, listener))
        return engine

    def _failed(self, context: ExceptionContext) -> None:
        engine = context.engine
        # The listener sees the owner's own use of the engine too; that is not ours to translate.
        if not isinstance(engine, RoutedEngine) or engine.pools is not self:
            return
        failure = judge(context.sqlalchemy_exception or context.original_exception, on_replica=engine.on_replica)
        if failure in {Failure.LOST, Failure.TIMEOUT}:
            self.lost(type(context.original_exception).__name__)
        elif context.connection is not None:
            hear_failure(context.connection, context.original_exception)
        if failure is Failure.READ_ONLY and engine.reads:
            raise ReadOnly(
                f"a read session on {self.name} attempted a write, which PostgreSQL refused; nothing was written. "
                "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."
            ) from context.original_exception
        if failure is Failure.READ_ONLY and context.connection is not None and demoted(context.connection):
            context.is_disconnect = True
            self.lost("Demoted")
            raise NoPrimary(
                f"{self.name} is in recovery: it is not the primary any more and refused the write. Retry."
            ) from context.original_exception
        if failure is Failure.NO_TRANSACTION and engine.on_replica:
            raise RoutingError(
                "a savepoint or a server-side cursor needs a transaction, and plain reads run without one; "
                "open the session with db.read(snapshot=True), in FastAPI reads(snapshot=True)."
            ) from context.original_exception
