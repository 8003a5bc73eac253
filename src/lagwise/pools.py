"""The pools through which one node is reached, and what is kept true of every connection in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool

from lagwise import sqlite
from lagwise.errors import ReadOnly, RoutingError
from lagwise.failure import Failure, classify
from lagwise.plain import plain

# Under this key of `Connection.info` a session leaves what is to be called, without arguments, before its COMMIT
# is sent. It answers a handle whose refused() is called when the server, in its own words, does not commit.
BEFORE_COMMIT, _COMMIT = "lagwise.before-commit", "lagwise.commit"
_ROLES = ("writing", "reading")
_FENCED, _TOUCHED = "lagwise.fenced", "lagwise.touched"
_FENCE = "SET default_transaction_read_only = on"
# What DISCARD ALL does, but for the statements the driver itself has prepared and still counts on.
_RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();
DO $$ DECLARE p text; BEGIN
  FOR p IN SELECT name FROM pg_prepared_statements WHERE from_sql LOOP EXECUTE format('DEALLOCATE %I', p); END LOOP;
END $$"""
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
            event.listen(self, "before_cursor_execute", _watch_statement)
        elif reads:
            sqlite.refuse_writes(self)
        else:
            event.listen(self, "commit", _commit)
            event.listen(self, "commit_twophase", _commit)

    def connect(self) -> Connection:
        """A connection from the pool; on a replica one that refuses writes even after a promotion."""
        if capacity(self.pool) <= checked_out(self.pool):
            self.tally.waits += 1
        try:
            connection = super().connect()
            if self.on_replica and _FENCED not in connection.info:
                self._fence(connection)
        except PoolTimeout:
            self.tally.timeouts += 1
            raise
        except Exception as error:
            # Refused, reset and timed-out connects arrive unwrapped, past every event.
            if judge(error, on_replica=self.on_replica) is Failure.LOST:
                self.pools.lost(type(error).__name__)
            raise
        return connection

    def _fence(self, connection: Connection) -> None:
        try:
            run_driver(connection.connection.dbapi_connection, _FENCE)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        connection.info[_FENCED] = True


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
        self._given = target if isinstance(target, AsyncEngine) else None
        self._url = target.url if isinstance(target, AsyncEngine) else make_url(target)
        self._configured_primary = configured_primary
        self._options = {**(DEFAULTS if self.is_postgresql else {}), **options}
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []

    @property
    def is_postgresql(self) -> bool:
        """Whether this is a PostgreSQL server: the only kind that has replicas here."""
        return self._url.get_backend_name() == "postgresql"

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

    def in_use(self) -> dict[str, AsyncEngine]:
        """The engines that exist so far, by role: writing, reading."""
        return {role: self.__dict__[role] for role in _ROLES if role in self.__dict__}

    async def close(self) -> None:
        """Stop listening to the owner's engine and dispose of the Router's own."""
        for target, name, listener in self._listening:
            event.remove(target, name, listener)
        self._listening.clear()
        for engine in self.in_use().values():
            if engine is not self._given:
                await engine.dispose()
        for name in [name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def _twin(self, engine: AsyncEngine) -> AsyncEngine:
        return create_async_engine(engine.url, pool=engine.sync_engine.pool.recreate())

    def _listen(self, engine: AsyncEngine, role: str) -> AsyncEngine:
        owned, tally = engine is not self._given, self.tallies[role]

        def opened(_connection: Any, _record: Any) -> None:
            tally.opened += 1

        for target, name, listener in (
            (engine.sync_engine.pool, "connect", opened),
            (engine.sync_engine.pool, "checkout", _drop_closed),
            (engine.sync_engine.pool, "reset", _reset_owned if owned else _close_touched),
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
        if failure is Failure.LOST:
            self.lost(type(context.original_exception).__name__)
        elif context.connection is not None:
            _refused(context.connection)
        if failure is Failure.READ_ONLY and engine.reads:
            raise ReadOnly(
                f"a read session on {self.name} attempted a write, which PostgreSQL refused; nothing was written. "
                "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."
            ) from context.original_exception
        if failure is Failure.NO_TRANSACTION and engine.on_replica:
            raise RoutingError(
                "a savepoint or a server-side cursor needs a transaction, and plain reads run without one; "
                "open the session with db.read(snapshot=True), in FastAPI reads(snapshot=True)."
            ) from context.original_exception


_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def judge(error: BaseException | None, *, on_replica: bool) -> Failure:
    """What an exception from SQLAlchemy or the driver means."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if sqlite.refused(original):
        return Failure.READ_ONLY
    state = getattr(original, "sqlstate", None)
    disconnected = isinstance(error, DBAPIError) and error.connection_invalidated
    if not isinstance(error, DBAPIError) and isinstance(error, OSError):  # TimeoutError is one
        disconnected = True
    return classify(state, str(original), disconnected=disconnected, on_replica=on_replica)


def run_driver(connection: Any, sql: str) -> None:
    """Run a script on the driver's own connection, one round trip, from inside the pool's greenlet."""
    connection.run_async(lambda driver: driver.execute(sql))


def checked_out(pool: Pool) -> int:
    """Connections in use; 0 for pools that do not count them."""
    count = getattr(pool, "checkedout", None)
    return count() if count is not None else 0


def capacity(pool: Pool) -> float:
    """The most connections this pool opens; infinite for pools without a limit."""
    size = getattr(pool, "size", None)
    overflow = getattr(pool, "_max_overflow", -1)  # there is no public name for it
    return size() + overflow if size is not None and overflow >= 0 else float("inf")


def _commit(connection: Connection, *_: Any) -> None:
    before = connection.info.pop(BEFORE_COMMIT, None)
    if before is not None:
        connection.info[_COMMIT] = before()


def _refused(connection: Connection) -> None:
    """The server answered with an error: if that was to a COMMIT, nothing was committed."""
    commit = connection.info.pop(_COMMIT, None)
    if commit is not None:
        commit.refused()
    if connection.dialect.name == "sqlite":
        sqlite.allow_writes(connection)


def _watch_statement(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
    """Note whether a read session's statement may outlive it."""
    if not plain(statement):
        connection.info[_TOUCHED] = True


def _drop_closed(_connection: Any, record: Any, _proxy: Any) -> None:
    """What pool_pre_ping asks the server, the driver mostly knows: this connection was closed."""
    is_closed = getattr(record.driver_connection, "is_closed", None)
    if is_closed is not None and is_closed():
        raise DisconnectionError


def _reset_owned(connection: Any, record: Any, state: Any) -> None:
    """AUTOCOMMIT and session locks outlive the session: undo what it may have left, in one trip."""
    if record is None or not record.info.pop(_TOUCHED, False):
        return
    if state.asyncio_safe and not state.terminate_only:
        fence = f"; {_FENCE}" if _FENCED in record.info else ""
        run_driver(connection, _RESET + fence)


def _close_touched(connection: Any, record: Any, state: Any) -> None:
    """The owner of an engine may have set up its connections, which a reset would undo: open a new one."""
    if record is not None and record.info.pop(_TOUCHED, False) and state.asyncio_safe:
        record.invalidate()
