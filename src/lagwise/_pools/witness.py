"""Hears what runs in a connection past SQLAlchemy's own statements: its cursors are given to listeners."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy.engine import Engine

from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from lagwise._pools.connection import IN_TRANSACTION, PooledConnection
from lagwise._pools.internals import Adapter, Cursor, StreamingCursor, goes_back
from lagwise._pools.traffic import Traffic
from lagwise._pools.translation import WAY_OUT
from lagwise.errors import ReadOnly

STATEMENTS = ("do_execute", "do_executemany", "do_execute_no_params")
"""Events of a dialect whose listeners are given a cursor; lagwise has one for each."""
_LIFTS = Effect.LIFTS | Effect.ENDS


class Witness:
    """Tells the session that has a connection what is about to run in it; remembers what ran before a session had it.

    Only where the application listens: without listeners nothing runs past SQLAlchemy's statements.
    """

    __slots__ = ("_begun", "_effect", "_reads", "_traffic", "_user")

    def __init__(self, traffic: Traffic, *, reads: bool) -> None:
        self._traffic = traffic
        self._reads = reads
        self._user: Callable[[], PooledConnection | None] = _unused
        self._effect = Effect.NOTHING
        self._begun = False

    def take(self, user: PooledConnection) -> None:
        """Tell this connection from here on; it begins with what a listener has run at its checkout."""
        self._user = ref(user)
        user.watched = True
        user.remember(self._effect)
        user.transaction_asked = user.transaction_asked or self._begun
        self._effect, self._begun = Effect.NOTHING, False

    def hear(self, adapter: Any, statement: str) -> None:
        """Prepare for this statement. Raises as `PooledConnection.note()`."""
        user = self._user()
        if user is None or user.closed:
            self._prepare(adapter, effects_of(statement, self._traffic.catalog))
        elif not (user.invalidated or goes_back(user)):
            user.note(statement)

    def hear_calls(self) -> None:
        """Remember that the driver is called directly: by its own means anything can be set."""
        user = self._user()
        if user is None or user.closed:
            self._effect |= Effect.TOUCHES
        else:
            user.touched = True

    def _prepare(self, adapter: Any, effect: Effect) -> None:
        self._traffic.pooling.refuse(effect)
        if self._reads:
            if effect & _LIFTS:
                raise ReadOnly(
                    "a `checkout` listener of the application's would end what keeps a read from writing. " + WAY_OUT
                )
            if effect & IN_TRANSACTION:
                adapter.isolation_level, adapter.readonly, self._begun = "read_committed", True, True
        self._effect |= effect


_witnesses: WeakKeyDictionary[Any, Witness] = WeakKeyDictionary()
"""By the driver's connection: SQLAlchemy's adapter of it has no room for more."""


def hears_statements(engine: Engine) -> bool:
    """Whether the application listens to these events, too."""
    return any(len(getattr(engine.dialect.dispatch, name)) > 1 for name in STATEMENTS)


def runs_at_checkout(engine: Engine) -> bool:
    """Whether code of the application's may run in a connection before a session has it."""
    return bool(engine.pool.dispatch.checkout or engine.dispatch.engine_connect)


def attend(adapter: Any, traffic: Traffic, *, reads: bool) -> Witness:
    """Hear from here on what runs in this connection."""
    adapter.__class__ = _Witnessed
    witness = _witnesses[adapter.driver_connection] = Witness(traffic, reads=reads)
    return witness


def watch(connection: PooledConnection) -> None:
    """Judge also what listeners run in this connection by the cursors that they are given; not in SQLite."""
    engine, adapter = connection.engine, connection.connection.dbapi_connection
    if engine.setup is None or adapter is None or connection.watched:
        return
    witness = _witnesses.get(adapter.driver_connection)
    if witness is None:
        witness = attend(adapter, engine.traffic, reads=engine.reads)
        # It was opened before the application listened: what has run at this checkout was not heard.
        connection.touched = connection.touched or runs_at_checkout(engine)
    engine.listen()  # so each of its sessions takes its witness
    witness.take(connection)


class _Witnessed(Adapter):
    __slots__ = ()

    def cursor(self, server_side: bool = False) -> Any:
        return (_WitnessedStream if server_side else _WitnessedCursor)(self)

    def run_async(self, fn: Callable[[Any], Any]) -> Any:
        _witnesses[self.driver_connection].hear_calls()
        return super().run_async(fn)


class _Hearing:
    __slots__ = ()
    adapter: Any

    def __init__(self, adapter: Any) -> None:
        super().__init__(adapter)  # type: ignore[call-arg]
        self.adapter = adapter

    def execute(self, operation: str, parameters: Any = None) -> None:
        _witnesses[self.adapter.driver_connection].hear(self.adapter, operation)
        super().execute(operation, parameters)  # type: ignore[misc]

    def executemany(self, operation: str, seq_of_parameters: Any) -> Any:
        _witnesses[self.adapter.driver_connection].hear(self.adapter, operation)
        return super().executemany(operation, seq_of_parameters)  # type: ignore[misc]


class _WitnessedCursor(_Hearing, Cursor):
    __slots__ = ("adapter",)


class _WitnessedStream(_Hearing, StreamingCursor):
    __slots__ = ("adapter",)


def _unused() -> None:
    return None
