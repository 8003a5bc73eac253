"""What is kept true of a pooled connection: alive, fenced, left clean, and its commits announced."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy.engine import Connection, Engine, RootTransaction, TwoPhaseTransaction

from lagwise._client.causality import Commit
from lagwise._decide.statement import plain
from lagwise._pools.driver import abandon, driver_of, run_driver

# Under one of these keys the pool keeps, as long as a connection lives, how to ask the driver whether it is closed.
_MET, _FENCED = "lagwise.met", "lagwise.fenced"
_FENCE = "SET default_transaction_read_only = on"
# What DISCARD ALL does, but for the statements the driver itself has prepared and still counts on.
_RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();
DO $$ DECLARE p text; BEGIN
  FOR p IN SELECT name FROM pg_prepared_statements WHERE from_sql LOOP EXECUTE format('DEALLOCATE %I', p); END LOOP;
END $$"""


class PooledConnection(Connection):
    """A connection out of a node's pool that goes back as it came.

    AUTOCOMMIT and session locks outlive the session. A `reset` event of the pool's would cost every session what
    costs only those that need it here.
    """

    touched = False
    """Whether a statement may have left something that outlives the session."""

    @property
    def untouched(self) -> bool:
        """Whether it goes back to its pool as it came: nothing will be sent to reset it."""
        return not (self.touched or self.closed or self.invalidated)

    def note(self, statement: str) -> None:
        """Note whether a read session's statement may outlive it."""
        if not plain(statement):
            self.touched = True

    def close(self) -> None:
        """As `Connection.close`; undo first what may have been left."""
        try:
            if self.touched and not (self.closed or self.invalidated):
                self._undo()
        finally:
            super().close()

    def _undo(self) -> None:
        try:
            self.reset()
        except BaseException as error:
            # Nobody knows in which state it is.
            abandon(self)
            self.invalidate()
            if not isinstance(error, Exception):
                raise

    def reset(self) -> None:
        """Undo what was left, in one trip."""
        self.rollback()
        end = "ROLLBACK; " if driver_of(self).is_in_transaction() else ""
        fence = f"; {_FENCE}" if _FENCED in self.info else ""
        run_driver(self, end + _RESET + fence)


class BorrowedConnection(PooledConnection):
    """One of an engine with an owner, who may have set it up in ways that a reset would undo."""

    def reset(self) -> None:
        """Let the pool open a new one in its place."""
        self.invalidate()


class WritingConnection(PooledConnection):
    """A connection that may write, and says so before each COMMIT.

    Not by way of SQLAlchemy's commit event: an engine that has listeners looks for those of every event at every
    statement, an eighth of what a write costs.
    """

    before_commit: Callable[[], Commit | None] | None = None
    """What to call before COMMIT is sent. It answers a handle, which is told when the server does not commit."""
    _commit: Commit | None = None

    def note(self, statement: str) -> None:
        """What a write session sets stays: its connection is as it left it."""

    def begin(self) -> RootTransaction:
        """As `Connection.begin`."""
        return super().begin() if self.in_transaction() else _Announced(self)

    def begin_twophase(self, xid: Any | None = None) -> TwoPhaseTransaction:
        """As `Connection.begin_twophase`."""
        if self.in_transaction():
            return super().begin_twophase(xid)
        return _AnnouncedTwoPhase(self, self.engine.dialect.create_xid() if xid is None else xid)

    def announce(self) -> None:
        """COMMIT is about to be sent: whoever asked for it hears of it now."""
        before, self.before_commit = self.before_commit, None
        if before is not None:
            self._commit = before()

    def failed(self, error: BaseException) -> None:
        """A statement failed: if it was a COMMIT and the server said so itself, nothing was committed.

        A cancelled COMMIT, or one whose connection broke, may have succeeded: it stays in doubt.
        """
        commit, self._commit = self._commit, None
        if commit is not None and getattr(getattr(error, "orig", error), "sqlstate", None) is not None:
            commit.refused()


class _Announced(RootTransaction):
    __slots__ = ()

    def commit(self) -> None:
        if self.is_active:
            cast("WritingConnection", self.connection).announce()
        super().commit()


class _AnnouncedTwoPhase(_Announced, TwoPhaseTransaction):
    __slots__ = ()


Kind = TypeVar("Kind", bound=PooledConnection)


def taken(kind: type[Kind], engine: Engine, *, fenced: bool) -> Kind:
    """A connection of the engine's pool: one that the driver knows to be closed is left out, and fenced if wanted.

    Fenced, it refuses writes for good: the server may be promoted while it is pooled.
    """
    mark = _FENCED if fenced else _MET
    while True:
        connection = kind(engine)
        closed = connection.info.get(mark)
        if closed is None:
            if fenced:
                _fence(connection)
            connection.info[mark] = getattr(driver_of(connection), "is_closed", _unknown)
            return connection
        if not closed():
            return connection
        # What pool_pre_ping asks the server, the driver mostly knows.
        connection.invalidate()
        connection.close()


def _fence(connection: Connection) -> None:
    try:
        run_driver(connection, _FENCE)
    except BaseException:
        abandon(connection)
        connection.close()
        raise


def _unknown() -> bool:
    """A driver that cannot say."""
    return False
