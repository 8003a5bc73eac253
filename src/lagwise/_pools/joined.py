"""One connection, in one transaction that is rolled back at the end, which all sessions of a Router use in turn."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from lagwise._pools.connection import PooledConnection
from lagwise._pools.counters import Counters
from lagwise._pools.driver import driver_of, is_closed
from lagwise._pools.engine import RoutedEngine
from lagwise._pools.internals import SharedConnection
from lagwise._pools.joined_connections import JoinedReading, JoinedWriting
from lagwise._pools.pooling import Pooling
from lagwise._pools.pools import Pools
from lagwise._pools.turns import Turns
from lagwise._pools.witness import watch
from lagwise.errors import RoutingError

_WAITS = 10.0  # seconds that a session waits for its turn
_BLOCK = "lagwise_block"  # a savepoint that ends with the transaction of all, and with no other one
# Not a name that another constraint of its schema shares which is not deferred: SET CONSTRAINTS would mean both.
_DEFERRED = """
SELECT 'SET CONSTRAINTS ' || string_agg(format('%I.%I', nspname, conname), ', ') || ' DEFERRED' FROM (
  SELECT nspname, conname FROM pg_catalog.pg_constraint JOIN pg_catalog.pg_namespace AS n ON n.oid = connamespace
  WHERE NOT pg_is_other_temp_schema(n.oid) AND has_schema_privilege(n.oid, 'USAGE')
  GROUP BY 1, 2 HAVING bool_and(condeferred)
) AS initially_deferred
"""
# The turn that this task has taken, or the task that started it: SQLAlchemy ends a session's block in another task.
_holds: ContextVar[object] = ContextVar("lagwise_turn", default=None)


class Joined:
    """The connection, its transaction, and whose turn it is.

    The transaction is the driver's: to each that begins inside, the driver gives a savepoint.
    """

    def __init__(self, pools: Pools, connection: PooledConnection) -> None:
        self.pools = pools
        self.spoilt = False
        """Whether a session has changed the driver in ways that cannot be undone."""
        self._connection = connection
        self._driver = driver_of(connection)
        self.pooling = Pooling()
        """One transaction keeps its server process, also where a pooler is in between."""
        adapter: Any = connection.connection.dbapi_connection
        self._usual: str | None = adapter.isolation_level
        # Under AUTOCOMMIT a session could not roll back, and a statement that fails would fail the transaction of all.
        self.isolation = None if self._usual == "autocommit" else self._usual
        self._turn = asyncio.Lock()
        self._holder: object = None
        self._ended = self._lost = False
        self._savepoints: list[Any] = [self._driver.transaction(isolation=self.isolation)]
        shared = SharedConnection(connection.connection, self._lose)
        self.reads = JoinedEngine(self, shared, pools.reads, JoinedReading)
        self.writes = JoinedEngine(self, shared, pools.writes, JoinedWriting)

    def spoil(self) -> None:
        """Close the connection at the end: a session has changed the driver in ways that cannot be undone."""
        self.spoilt = True

    async def begin(self) -> None:
        """Begin the transaction."""
        await self._savepoints[0].start()
        await self.run(f"SAVEPOINT {_BLOCK}")

    async def nest(self) -> Any:
        """Begin a savepoint in it, for a block of its own; answers what `unnest()` takes."""
        await self.take_turn()
        try:
            savepoint = self._driver.transaction()
            await savepoint.start()
        finally:
            self.give_turn()
        self._savepoints.append(savepoint)
        return savepoint

    async def unnest(self, savepoint: Any) -> None:
        """Roll back to this savepoint. Raises `RoutingError` unless it is the innermost one."""
        if self._savepoints[-1] is not savepoint:
            raise RoutingError("rolled_back blocks of one Router end in the reverse order of their beginning")
        self._savepoints.pop()
        await self.take_turn()
        try:
            await savepoint.rollback()
        finally:
            self.give_turn()

    async def end(self) -> None:
        """Roll back, whatever is open, and give the connection back.

        Raises:
            RoutingError: a session is open still, or the transaction was ended before.
        """
        self._ended, problem = True, ""
        if self._lost or self._driver.is_closed():
            problem = "its connection was lost, and with it what its sessions had written"
        elif self._turn.locked():
            problem = "a session is still open, and was cut off; end each session inside the block"
        elif not await self._goes_on():
            problem = "its transaction was ended by the driver's own means: what was written may be committed"
        try:
            if problem:
                self._driver.terminate()
                await greenlet_spawn(self._connection.invalidate)
            else:
                await self._savepoints[0].rollback()
                self.as_for_writes(self._connection, self._usual)
                self._connection.touched, self._connection.spoilt = True, self.spoilt
        finally:
            await greenlet_spawn(self._connection.close)
        if problem:
            raise RoutingError(f"rolled_back ends, and {problem}")

    async def _goes_on(self) -> bool:
        """Whether the transaction is the one that was begun; COMMIT and BEGIN past SQLAlchemy leave another one."""
        if not self._driver.is_in_transaction():
            return False
        try:
            await self.run(f"ROLLBACK TO SAVEPOINT {_BLOCK}")
        except asyncpg.InvalidSavepointSpecificationError:
            return False
        return True

    async def defer_again(self) -> None:
        """Defer what a transaction defers when it begins: for the next write, this one's has ended."""
        script = await self._driver.fetchval(_DEFERRED)
        if script is not None:
            await self.run(script)

    async def take_turn(self) -> None:
        """Wait until no other session uses the connection.

        Raises:
            RoutingError: this task has a session open that uses it, the wait takes too long, or the block has ended.
        """
        self._require_usable()
        if self._turn.locked() and _holds.get() is self._holder:
            raise RoutingError(
                "inside rolled_back all sessions share one connection, and this task, or the one that started it, has "
                "another session open that uses it (a write that is not committed, or a read in a transaction): this "
                "one would wait for itself. End that session first."
            )
        try:
            async with asyncio.timeout(_WAITS):
                await self._turn.acquire()
        except TimeoutError:
            raise RoutingError(
                f"inside rolled_back all sessions share one connection, and another session has used it for {_WAITS:g} "
                "s: sessions that are open at the same time may be waiting for each other."
            ) from None
        self._holder = object()
        _holds.set(self._holder)
        if self._ended or self._lost:
            self.give_turn()
            self._require_usable()

    def give_turn(self) -> None:
        """The next session may use the connection."""
        self._holder = None
        self._turn.release()

    async def run(self, sql: str) -> None:
        """Run a script on the connection, unless it was lost."""
        if not self._driver.is_closed():
            await self._driver.execute(sql)

    def as_for_writes(self, connection: Connection, level: str | None) -> None:
        """Let SQLAlchemy begin a transaction of this level with the next statement; a read has changed that."""
        adapter: Any = connection.connection.dbapi_connection
        adapter.isolation_level, adapter.readonly = level, False

    def _require_usable(self) -> None:
        if self._ended:
            raise RoutingError("the rolled_back block of this session has ended; open a session inside a block")
        if self._lost or self._driver.is_closed():
            raise RoutingError(
                "the connection that all sessions share inside rolled_back was lost, and what they have written with it"
            )

    def _lose(self) -> None:
        self._lost = True


class JoinedEngine(RoutedEngine):
    """Gives out the one connection, to one session at a time."""

    def __init__(
        self, joined: Joined, shared: SharedConnection, base: RoutedEngine, kind: Callable[..., PooledConnection]
    ) -> None:
        # Not as an engine that reads: the monitor cuts those off, and none of its sessions can go elsewhere.
        super().__init__(base.base, base.traffic, Counters(), Turns(), base.setup, kind=PooledConnection, reads=False)
        self.reads = self.fenced = base.reads
        self.pooling, self.listened = joined.pooling, base.listened
        self.joined = joined
        self._joined_kind = partial(kind, self, cast("Any", shared))

    def connect(self) -> PooledConnection:
        """The connection, when it is this session's turn. Raises as `Joined.take_turn()`."""
        self.hear()
        await_only(self.joined.take_turn())
        try:
            connection = self._joined_kind()
            if self.listened or self.pool.dispatch.checkout:
                watch(connection)
            connection.enter()  # type: ignore[attr-defined]
        except BaseException:
            self.joined.give_turn()
            raise
        return connection

    @property
    def gives_back_silently(self) -> bool:
        """Never: a savepoint ends."""
        return False

    def report_failure(self, error: BaseException, connection: Connection | None) -> bool:
        """As `RoutedEngine.report_failure`; of the node only that it is lost."""
        if connection is None or connection.invalidated or is_closed(connection):
            return super().report_failure(error, connection)
        if isinstance(connection, JoinedReading):
            connection.failed = True
        return False
