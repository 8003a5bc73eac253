"""A pooled connection for reads: it cannot write, has a transaction when asked, and goes back as it came."""

from collections.abc import Callable
from contextlib import closing
from typing import Any, cast

from sqlalchemy.engine import Connection, NestedTransaction, RootTransaction

from lagwise._decide.catalog import Catalog
from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from lagwise._pools.driver import abandon, driver_of, run_driver
from lagwise._pools.limited import LimitedConnection
from lagwise._pools.options import ISOLATION
from lagwise._pools.pooling import Pooling
from lagwise._pools.translation import WAY_OUT
from lagwise.errors import ReadOnly, RoutingError

IN_TRANSACTION = Effect.TRANSACTION | Effect.OPAQUE | Effect.RESETS
STAYS = Effect.TOUCHES | Effect.OPAQUE | Effect.RESETS | Effect.SPOILS | Effect.BEGINS
_NOTHING = Effect.NOTHING
_QUERIES = ("select", "with", "values", "table")


def takes_a_snapshot(statement: str) -> bool:
    """Whether this statement takes a snapshot before it runs functions or other code.

    Once a transaction has one, PostgreSQL refuses to make it read-write
    (https://www.postgresql.org/docs/current/sql-set-transaction.html). DO and CALL begin without.
    """
    return statement.lstrip("( \t\r\n")[:6].lower().startswith(_QUERIES)


class PooledConnection(LimitedConnection):
    """A connection for reads. It has no transaction until a statement, or the application, asks for one.

    It is fenced: its server refuses writes (`default_transaction_read_only`), also after a promotion.

    What was done with it is known where it was done, so other classes write its flags; each adds a suspicion alone.
    """

    engine: Any
    """The RoutedEngine that it is of."""
    touched = False
    """Whether a statement may have left something that outlives the session."""
    spoilt = False
    """Whether a reset cannot undo what it holds, so that it must be closed."""
    transaction_asked = False
    """Whether a READ ONLY transaction was asked for."""
    unsure = False
    """Whether code ran that may have lifted the fence, or changed how the server reads the texts to come."""
    failed = False
    """Whether a statement has failed in it."""
    awaited = False
    """Whether the server is asked something past SQLAlchemy's cursors."""
    shared = False
    """Whether other sessions use the driver's connection in turn, all in one transaction."""
    watched = False
    """Whether a Witness calls `note()` for all that its cursors run."""

    task: object = None
    """The task that took it from its pool, the request that the task serves, and the time: monotonic seconds."""
    request: object = None
    since = 0.0

    @property
    def untouched(self) -> bool:
        """Whether it goes back to its pool as it came: nothing will be sent to reset it."""
        return not (self.touched or self.transaction_asked or self.closed or self.invalidated)

    @property
    def traffic(self) -> Any:
        """The traffic of its node."""
        return self.engine.traffic

    @property
    def pooling(self) -> Pooling:
        """What it keeps between two transactions."""
        return self.engine.pooling  # type: ignore[no-any-return]

    @property
    def catalog(self) -> Catalog:
        """What the database says of the functions, operators and types that statements name."""
        return self.engine.traffic.catalog  # type: ignore[no-any-return]

    def note(self, statement: str) -> None:
        """Prepare for a statement that is about to run; called before each.

        Raises:
            ReadOnly: the statement would lift what keeps a read from writing.
        """
        if self.limit is not None and self.limited is None:
            self.restrict(self.limit)
        effect = effects_of(statement, self.engine.traffic.catalog)
        if effect is not _NOTHING:
            self.prepare_for(effect, statement)

    def prepare_for(self, effect: Effect, statement: str) -> None:
        """Give the statement the transaction that it needs, and remember what it leaves. Raises as `note()`."""
        self.refuse_lifting(effect, transaction_asked=self.transaction_asked)
        self.pooling.refuse(effect)
        self.remember(effect)
        if effect & IN_TRANSACTION:
            self.ask_for_transaction()
        if self.unsure and not takes_a_snapshot(statement):
            self._take_snapshot()

    def refuse_lifting(self, effect: Effect, *, transaction_asked: bool) -> None:
        """Raise `ReadOnly` for a statement that would lift the fence, or end the transaction it was given."""
        if effect & Effect.LIFTS or (effect & Effect.ENDS and (transaction_asked or effect & IN_TRANSACTION)):
            raise ReadOnly(
                "a read session keeps its transactions read-only, and this statement would end that. " + WAY_OUT
            )

    def remember(self, effect: Effect) -> None:
        """Remember what a statement may leave behind."""
        self.touched = self.touched or bool(effect & STAYS)
        self.spoilt = self.spoilt or bool(effect & Effect.SPOILS)
        self.unsure = self.unsure or bool(effect & (Effect.OPAQUE | Effect.RESETS | Effect.LIFTS))
        if effect & Effect.UNKNOWN:
            self.traffic.relearn()

    def ask_for_transaction(self, isolation: str = "READ COMMITTED") -> None:
        """Run the following statements in a READ ONLY transaction, until it ends; BEGIN goes with the first."""
        if self.transaction_asked or self.dialect.name != "postgresql":
            return
        adapter = self.connection.dbapi_connection
        assert adapter is not None
        self.dialect.set_isolation_level(adapter, cast("Any", isolation))
        cast("Any", self.dialect).set_readonly(adapter, True)
        self.transaction_asked = True

    def _take_snapshot(self) -> None:
        with closing(self.connection.cursor()) as cursor:
            cursor.execute("SELECT 1")

    def end_transaction(self) -> None:
        """Return to AUTOCOMMIT: the transaction has ended."""
        self.transaction_asked = False
        if self.closed or self.invalidated:
            return
        self.pooling.relax(self.dialect, self.connection.dbapi_connection)
        if self.unsure:
            self._undo()

    def begin(self) -> RootTransaction:
        """As `Connection.begin`."""
        return super().begin() if self.in_transaction() else _Reading(self)

    def begin_nested(self) -> NestedTransaction:
        """As `Connection.begin_nested`; a savepoint asks for a transaction."""
        self.ask_for_transaction()
        return super().begin_nested()

    def execution_options(self, **opt: Any) -> Connection:
        """As `Connection.execution_options`; an isolation level asks for a READ ONLY transaction.

        Raises:
            ReadOnly: `postgresql_readonly=False`.
            RoutingError: SERIALIZABLE, which a replica cannot give.
        """
        level, readonly, _ = (opt.pop(name, None) for name in ISOLATION)
        if readonly is False:
            raise ReadOnly("postgresql_readonly=False makes no sense in a read session. " + WAY_OUT)
        if level is not None and level.upper() != "AUTOCOMMIT":
            if level.upper() == "SERIALIZABLE":
                raise RoutingError(
                    "isolation_level SERIALIZABLE cannot be had from a replica: "
                    "use db.read(snapshot=True), which is REPEATABLE READ, or a write session"
                )
            self.ask_for_transaction(level.upper())
        elif readonly:
            self.ask_for_transaction()
        return super().execution_options(**opt) if opt else self

    def close(self) -> None:
        """As `Connection.close`; first undo what statements may have left."""
        if self.limited is not None:
            self.lift()
        try:
            if self.transaction_asked or self.touched:
                self._restore()
        finally:
            super().close()

    def _restore(self) -> None:
        transaction = self.get_transaction()
        if transaction is not None:
            transaction.close()  # it ends the one that was asked for
        if self.transaction_asked:
            self.end_transaction()
        if self.touched and not (self.closed or self.invalidated):
            self._undo()

    def _undo(self) -> None:
        self.awaited = True
        try:
            self.reset()
        except BaseException as error:
            # The state of the connection is unknown.
            abandon(self)
            self.invalidate()
            if not isinstance(error, Exception):
                raise

    def reset(self) -> None:
        """Undo what statements have left, in one round trip, or let the pool open another connection in its place."""
        if self.engine.setup is None:  # SQLite: no settings to undo, and a database in memory is its connection
            self.touched = self.unsure = False
            return
        script = None if self.spoilt else self.pooling.restoration(self.info)
        if script is None:
            self.invalidate()
            return
        end = "ROLLBACK; " if driver_of(self).is_in_transaction() else ""
        if end or script:
            run_driver(self, end + script)
        self.touched = self.unsure = False


class _Reading(RootTransaction):
    """The transaction of a connection for reads: the server has none, unless one was asked for."""

    __slots__ = ()
    connection: PooledConnection

    def close(self) -> None:
        if self.connection.limited is not None:
            self.connection.lift()
        try:
            super().close()
        finally:
            if self.connection.transaction_asked:
                self.connection.end_transaction()

    def rollback(self) -> None:
        self._end(super().rollback)

    def commit(self) -> None:
        self._end(super().commit)

    def _end(self, end: Callable[[], None]) -> None:
        if self.connection.limited is not None:
            self.connection.lift()
        try:
            end()
        finally:
            if self.connection.transaction_asked:
                self.connection.end_transaction()
