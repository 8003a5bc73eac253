"""Every name of SQLAlchemy's and asyncpg's that they do not document, each with the reason it is needed.

Both are bounded from above in pyproject.toml; tests/pools/test_internals.py fails by the name that has changed.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import ref

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import asyncpg as of_dialect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.event import registry
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.asyncio.session import _AsyncSessionContextManager
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool
from sqlalchemy.util import immutabledict

_OURS = "lagwise."
_LENDINGS = itertools.count(1)

Adapter = of_dialect.AsyncAdapt_asyncpg_connection
Cursor = of_dialect.AsyncAdapt_asyncpg_cursor
StreamingCursor = of_dialect.AsyncAdapt_asyncpg_ss_cursor
"""What SQLAlchemy makes of asyncpg's connection, and the cursors that it gives; their classes are not public."""


def most_overflow(pool: Pool) -> int:
    """How many connections beyond its size this pool opens; -1 for no limit. There is no public name for it."""
    most: int = getattr(pool, "_max_overflow", -1)
    return most


class OptionedEngine(OptionEngine):
    """An engine with the events and options of another one, also those that are added later.

    What `Engine.execution_options()` makes, which is public; its class is not.
    """

    # SQLAlchemy asks for it six times a statement, and an OptionEngine asks its parent each time.
    _has_events = False
    listened = False
    """Whether the application listens."""

    def __init__(self, base: Engine, options: Mapping[str, Any]) -> None:
        super().__init__(base, dict(options))
        self._proxied: Engine

    @property
    def base(self) -> Engine:
        """The engine it is made from."""
        return self._proxied

    def hear(self) -> None:
        """Notice listeners that were added to the base engine meanwhile."""
        if self._proxied._has_events:
            self._has_events = self.listened = True


class Twin(OptionedEngine):
    """An engine like another in all but the pool, and without the isolation level that its options set."""

    def __init__(self, base: Engine, pool: Pool) -> None:
        self._own = pool
        super().__init__(base, {})
        dialect: Any = base.dialect
        isolation = dialect.connection_characteristics
        options = {key: value for key, value in base.get_execution_options().items() if key not in isolation}
        self._execution_options = immutabledict(options)

    if not TYPE_CHECKING:  # an attribute for type checkers, and a property in SQLAlchemy as well

        @property
        def pool(self) -> Pool:
            """Its own."""
            return self._own

        @pool.setter
        def pool(self, pool: Pool) -> None:
            self._own = pool

        @property
        def _has_events(self) -> bool:
            return self._proxied._has_events or self.__dict__.get("_has_events", False)

        @_has_events.setter
        def _has_events(self, value: bool) -> None:
            self.__dict__["_has_events"] = value


def pool_like(pool: Pool, dialect: Any) -> Pool:
    """A pool of its own with the application's listeners, without ours, and without the isolation level for writes.

    SQLAlchemy sets that by a listener of the pool's, before the dialect asks its first question; a standby refuses
    SERIALIZABLE.
    """
    made = pool.recreate()
    configured = dialect._builtin_onconnect()
    for name in ("connect", "checkin"):
        collection = getattr(made.dispatch, name)
        for listener in list(collection.listeners):
            ours = str(getattr(listener, "__module__", "")).startswith(_OURS)
            if ours or (configured is not None and getattr(listener, "__code__", None) is configured.__code__):
                _take_out(collection, listener)
    return made


def _take_out(collection: Any, listener: Any) -> None:
    """As `event.remove`, from this copy alone. The registry of listeners must know, or a later removal fails."""
    key = registry._collection_to_key.get(collection.ref, {}).pop(ref(listener), None)
    if key is not None:
        registry._key_to_collection.get(key, {}).pop(collection.ref, None)
    collection.listeners.remove(listener)


def goes_back(connection: Connection) -> bool:
    """Whether this connection is on its way into its pool: what runs in it are listeners of `reset` and `checkin`."""
    return bool(connection.connection._counter == 0)


def drop_resets(connection: Connection) -> None:
    """Forget the isolation level that an option of its engine would give this connection when it goes back."""
    connection.connection._connection_record.finalize_callback.clear()


class UnnamedStatements(asyncpg.Connection):  # type: ignore[misc]
    """asyncpg's Connection, whose statements have no names on the server: cursors, and what is prepared.

    The driver parses a statement without a name anew each time, if its cache is off. It gives names by this method.
    """

    __slots__ = ()

    async def _get_statement(self, *args: Any, named: Any = False, **kw: Any) -> Any:
        return await super()._get_statement(*args, named="", **kw)

    async def _introspect_types(self, *args: Any, **kw: Any) -> Any:
        if self.is_in_transaction():
            return await super()._introspect_types(*args, **kw)
        transaction = self.transaction(isolation="read_committed", readonly=True)  # the driver sets `jit` meanwhile
        await transaction.start()
        try:
            return await super()._introspect_types(*args, **kw)
        finally:
            await transaction.rollback()


def forget_statements(adapter: Any) -> None:
    """Let SQLAlchemy keep no prepared statement of this connection, and give none a name."""
    adapter._prepared_statement_cache = None
    adapter._prepared_statement_name_func = str


def is_executing(adapter: Any) -> bool:
    """Whether a statement of SQLAlchemy's waits for its answer; the driver has no name for that at all."""
    return bool(adapter._execute_mutex.locked())


def transport_of(driver: Any) -> Any:
    """The transport of the driver's connection: asyncpg shows neither it nor its socket."""
    return driver._transport


def caches_statements(driver: Any) -> bool:
    """Whether the driver keeps prepared statements."""
    return bool(driver._stmt_cache_enabled)


class Lending:
    """One session's use of the driver's connection. Objects that it got from the driver raise after `end()`.

    By this number asyncpg tells whether a statement, cursor or transaction is of the present lending: used after it,
    they raise instead of running on another session's connection. The number has no public name.
    """

    __slots__ = ("_before", "_driver")

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._before = driver._pool_release_ctr
        driver._pool_release_ctr = -next(_LENDINGS)

    def end(self) -> None:
        """The lending is over."""
        self._driver._pool_release_ctr = self._before


class CallLimit:
    """A limit, seconds, for each call of asyncpg's connection that has none of its own, until `end()`.

    What `connect(command_timeout=...)` sets for ever; there is no public name to set it for a while.
    """

    __slots__ = ("_driver", "_usual")

    def __init__(self, driver: Any, seconds: float) -> None:
        self._driver = driver
        self._usual = driver._config
        driver._config = driver._config._replace(command_timeout=seconds)

    def end(self) -> None:
        """Each call may take again what it might before."""
        self._driver._config = self._usual


class SharedConnection:
    """A connection from a pool that several of SQLAlchemy's Connections use in turn; none of them gives it back.

    Each ends its use by `close()`, or by `_close_special()`, which has no public name.
    """

    def __init__(self, pooled: Any, lost: Callable[[], None]) -> None:
        self._pooled = pooled
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pooled, name)

    def close(self) -> None:
        """The use is over."""

    def _close_special(self, transaction_reset: bool = False) -> None:
        """The use is over."""

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """It is lost for all."""
        self._lost()
        if self._pooled.is_valid:
            self._pooled.invalidate(e, soft=soft)


def listen_first(target: Any, name: str, listener: Any) -> None:
    """As `event.listen`, before the listeners that are there already."""
    event.listen(target, name, listener, insert=True)


SessionBlock = _AsyncSessionContextManager[AsyncSession]
"""What `async_sessionmaker.begin()` is declared to answer; SQLAlchemy exports no name for it."""


def has_pending(session: Session) -> bool:
    """Whether objects were added or deleted and not flushed; the public names make a set of them, for every session."""
    return bool(session._new or session._deleted)
