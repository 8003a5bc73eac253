"""A pooled connection that writes: it announces each COMMIT, and goes back as it came."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection, RootTransaction, TwoPhaseTransaction

from lagwise._client.causality import Commit
from lagwise._decide.effect import Effect
from lagwise._decide.failure import Failure
from lagwise._decide.statement import effects_of
from lagwise._decide.token import Position
from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon, driver_of, judge
from lagwise._pools.internals import is_executing
from lagwise._pools.placing import PlacingDriver, may_have_succeeded
from lagwise.errors import NoPrimary


class WritingConnection(PooledConnection):
    """A connection that may write, and announces each COMMIT to the client it serves.

    Not by way of SQLAlchemy's commit event: an engine that has listeners looks for those of every event at every
    statement, an eighth of what a write costs.
    """

    pending: Commit | None = None
    """The handle of the commit; None where no client carries a token."""
    committed_by_text = False
    lent = False
    """Whether the application holds this connection, and so the driver: a commit through the driver is not seen."""
    place: Position | None = None
    """The position of the latest COMMIT, if the answer to COMMIT has told it."""
    asked = False
    """Whether the latest COMMIT was sent together with the query for its position."""
    committing = False
    """Whether a COMMIT is on its way."""
    undone = False
    """Whether it was cut off before a COMMIT: the server rolls back what it was about to write."""

    def cut_off(self) -> None:
        """End the wait for a server that is silent; a connection that waits for none is left alone."""
        if self.closed or self.invalidated or self.dialect.name != "postgresql":
            return
        adapter: Any = self.connection.dbapi_connection
        if self.committing or self.awaited or self.lent or is_executing(adapter):
            self.undone = not (self.committing or self.committed_by_text or self.lent or adapter.autocommit)
            abandon(self)

    def prepare_for(self, effect: Effect, statement: str) -> None:
        """Remember what the statement leaves, and announce a COMMIT in its text."""
        self.pooling.refuse(effect)
        self.remember(effect & ~Effect.BEGINS)
        if effect & Effect.ENDS:
            self.committed_by_text = True
            self.announce()

    def note(self, statement: str) -> None:
        """Remember what a statement leaves; a statement that commits by itself is announced."""
        if self.limit is not None and self.limited is None:
            self.restrict(self.limit)
        effect = effects_of(statement, self.engine.traffic.catalog)
        if effect is not Effect.WRITES and effect is not Effect.NOTHING:
            self.prepare_for(effect, statement)
        pending = self.pending
        if pending is None or pending.announced:
            return
        if getattr(self.connection.dbapi_connection, "autocommit", False):
            self.committed_by_text = True
            pending.announce()

    def ask_for_transaction(self, isolation: str = "READ COMMITTED") -> None:
        """Do nothing: a write session has only the transactions that its application begins."""

    def execution_options(self, **opt: Any) -> Connection:
        """As `Connection.execution_options`."""
        return Connection.execution_options(self, **opt)

    def begin(self) -> RootTransaction:
        """As `Connection.begin`."""
        return super().begin() if self.in_transaction() else _Announced(self)

    def begin_twophase(self, xid: Any | None = None) -> TwoPhaseTransaction:
        """As `Connection.begin_twophase`."""
        if self.in_transaction():
            return super().begin_twophase(xid)
        return _AnnouncedTwoPhase(self, self.engine.dialect.create_xid() if xid is None else xid)

    def announce(self) -> None:
        """Put the client in doubt: COMMIT is about to be sent."""
        if self.pending is not None:
            self.pending.announce()

    def send_commit(self) -> Any:
        """Announce the COMMIT that is about to be sent, and let it ask for its position, where a client needs it.

        Answers the driver that asks, or None.
        """
        if self.limited is not None:
            self.lift()
        self.committing = True
        pending, self.place, self.asked = self.pending, None, False
        if pending is None:
            return None
        pending.announce()
        if pending.system is None or self.closed or self.invalidated:
            return None
        driver = driver_of(self)
        if not PlacingDriver.ask_with_commit(driver, one_server=not self.engine.pooling.framed):
            return None
        self.asked = True
        return driver

    def hear_place(self, driver: Any) -> None:
        """Take the position from the driver that `send_commit()` gave, after COMMIT succeeded or failed."""
        self.committing = False
        if driver is not None:
            self.place = driver.told_place()

    def commit_failed(self, error: BaseException) -> None:
        """Judge a COMMIT that failed: only a refusal by the server itself proves that nothing was committed.

        A cancelled COMMIT, or one whose connection broke, may have succeeded: it stays in doubt.
        """
        original = getattr(error, "orig", error)
        said_no = getattr(original, "sqlstate", None) is not None and not (self.asked and may_have_succeeded(original))
        lost = judge(error, on_replica=False) in {Failure.LOST, Failure.TIMEOUT}
        if self.pending is not None and said_no and not lost and not self.committed_by_text:
            self.pending.refused()


class _Announced(RootTransaction):
    __slots__ = ()

    def commit(self) -> None:
        connection: Any = self.connection  # a WritingConnection
        asked = connection.send_commit() if self.is_active else None
        try:
            super().commit()
        except BaseException as error:
            connection.commit_failed(error)
            raise
        finally:
            connection.hear_place(asked)

    def rollback(self) -> None:
        self._end(super().rollback)

    def close(self) -> None:
        self._end(super().close)

    def _end(self, end: Callable[[], None]) -> None:
        connection: Any = self.connection  # a WritingConnection
        open_until_now, before = self.is_active, connection.awaited
        connection.lift()
        connection.awaited = True
        try:
            end()
        except NoPrimary:
            if not connection.undone:
                raise  # otherwise the server rolls back by itself, and a cancellation stays one
        finally:
            connection.awaited = before
        self._ended(open_until_now)

    def _ended(self, open_until_now: bool) -> None:
        connection: Any = self.connection  # a WritingConnection
        pending: Commit | None = connection.pending
        if pending is None:
            return
        if connection.lent and open_until_now:
            pending.announce()
        if not pending.announced:
            pending.ended()


class _AnnouncedTwoPhase(_Announced, TwoPhaseTransaction):
    __slots__ = ()
