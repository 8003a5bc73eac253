"""The connections of sessions that share one transaction: each is a turn, inside a savepoint."""

from contextlib import suppress
from typing import Any, cast

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection, TwoPhaseTransaction
from sqlalchemy.util.concurrency import await_only, in_greenlet

from lagwise._decide.effect import Effect
from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import run_driver
from lagwise._pools.writing import WritingConnection
from lagwise.errors import RoutingError

# The savepoint of a read. RELEASE would leave what SET LOCAL has set.
_ENTER = "SAVEPOINT lagwise_read; SET LOCAL transaction_read_only = on"
_REWIND = "ROLLBACK TO SAVEPOINT lagwise_read; SET LOCAL transaction_read_only = on"
_LEAVE = "ROLLBACK TO SAVEPOINT lagwise_read; RELEASE SAVEPOINT lagwise_read"
_CHECK = "SET CONSTRAINTS ALL IMMEDIATE"


class JoinedReading(PooledConnection):
    """A read's turn: inside a savepoint that is read-only and rolled back, as are the transactions begun in it."""

    shared = True

    @property
    def joined(self) -> Any:
        """What it is a turn of."""
        return cast("Any", self.engine).joined

    def enter(self) -> None:
        """Begin."""
        self.joined.pooling.settle(self.dialect, self.connection.dbapi_connection)
        await_only(self.joined.run(_ENTER))

    def note(self, statement: str) -> None:
        """As `PooledConnection.note`."""
        if self.failed and in_greenlet():
            await_only(self.mend())
        super().note(statement)

    async def mend(self) -> None:
        """Begin anew after a statement that has failed, as a plain read outside of rolled_back goes on.

        Unless a transaction that was asked for has failed with it.
        """
        if self.failed and not self.transaction_asked and not self.in_nested_transaction():
            self.failed = False
            await self.joined.run(_REWIND)

    def refuse_lifting(self, effect: Effect, *, transaction_asked: bool) -> None:
        """As `PooledConnection.refuse_lifting`; it is always in a transaction."""
        super().refuse_lifting(effect, transaction_asked=True)

    def ask_for_transaction(self, isolation: str = "READ COMMITTED") -> None:
        """Keep the savepoint until the transaction that is asked for has ended."""
        self.transaction_asked = True

    def end_transaction(self) -> None:
        """End that transaction: what it has set ends with it."""
        self.transaction_asked = self.failed = False
        if not (self.closed or self.invalidated):
            await_only(self.joined.run(_REWIND))

    def reset(self) -> None:
        """Undo what statements have left."""
        await_only(self.joined.run(_REWIND))
        self.touched = self.unsure = self.failed = False

    def close(self) -> None:
        """As `PooledConnection.close`; the turn is over."""
        if self.closed:
            return
        joined = self.joined
        if self.spoilt:
            joined.spoil()
        try:
            super().close()
            await_only(joined.run(_LEAVE))
        finally:
            joined.give_turn()


class JoinedWriting(WritingConnection):
    """A write's turn: its transactions are savepoints."""

    shared = True

    @property
    def joined(self) -> Any:
        """What it is a turn of."""
        return cast("Any", self.engine).joined

    def enter(self) -> None:
        """Begin."""
        self.joined.as_for_writes(self, self.joined.isolation)

    def prepare_for(self, effect: Effect, statement: str) -> None:
        """Remember what the statement leaves. Raises `RoutingError` where it would end the transaction of all."""
        if effect & Effect.ENDS:
            raise RoutingError(
                "inside rolled_back, COMMIT and ROLLBACK as SQL text would end the transaction that all sessions "
                "share; use the session's commit() and rollback()"
            )
        super().prepare_for(effect, statement)

    def send_commit(self) -> Any:
        """As `WritingConnection.send_commit`; first check what is deferred until COMMIT, which a savepoint is not."""
        if in_greenlet():  # otherwise it is the driver's, whose routing has checked
            self.exec_driver_sql(_CHECK)
            await_only(self.joined.defer_again())
        return super().send_commit()

    async def check_deferred(self) -> None:
        """The same for the driver's own COMMIT."""
        await self.joined.run(_CHECK)
        await self.joined.defer_again()

    def remember(self, effect: Effect) -> None:
        """Remember also what COMMIT would end: a savepoint that is released leaves what SET LOCAL has set."""
        super().remember(effect)
        self.touched = self.touched or bool(effect & Effect.TRANSACTION)

    def execution_options(self, **opt: Any) -> Connection:
        """As `Connection.execution_options`, without the isolation level: the transaction of all has one already."""
        opt.pop("isolation_level", None)
        return super().execution_options(**opt) if opt else self

    def begin_twophase(self, xid: Any | None = None) -> TwoPhaseTransaction:
        """Raise `RoutingError`: a prepared transaction would be one of its own."""
        raise RoutingError("inside rolled_back there is no two-phase commit: all sessions share one transaction")

    def reset(self) -> None:
        """Undo what statements have set, inside the transaction."""
        script = self.joined.pooling.restoration(self.info)
        if script is not None:
            with suppress(asyncpg.PostgresError):
                run_driver(self, f"SAVEPOINT lagwise_reset; {script}; RELEASE SAVEPOINT lagwise_reset")
        self.touched = self.unsure = False

    def close(self) -> None:
        """As `PooledConnection.close`; the turn is over."""
        if self.closed:
            return
        joined = self.joined
        if self.spoilt:
            joined.spoil()
        try:
            super().close()
        finally:
            joined.give_turn()
