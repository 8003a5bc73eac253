"""What is kept true of a pooled connection: fenced, alive, left clean, and its commits announced."""

from contextlib import suppress
from typing import Any

from asyncpg import InterfaceError, InternalClientError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection, RootTransaction, TwoPhaseTransaction
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import Pool

from lagwise import sqlite
from lagwise.failure import Failure, classify
from lagwise.plain import plain

# Under this key of `Connection.info` a session leaves what is to be called, without arguments, before its COMMIT
# is sent. It answers a handle whose refused() is called when the server, in its own words, does not commit.
BEFORE_COMMIT, _COMMIT = "lagwise.before-commit", "lagwise.commit"
_FENCED, _TOUCHED = "lagwise.fenced", "lagwise.touched"
_FENCE = "SET default_transaction_read_only = on"
# What DISCARD ALL does, but for the statements the driver itself has prepared and still counts on.
_RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();
DO $$ DECLARE p text; BEGIN
  FOR p IN SELECT name FROM pg_prepared_statements WHERE from_sql LOOP EXECUTE format('DEALLOCATE %I', p); END LOOP;
END $$"""


def judge(error: BaseException | None, *, on_replica: bool) -> Failure:
    """What an exception from SQLAlchemy or the driver means."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if sqlite.refused(original):
        return Failure.READ_ONLY
    return classify(
        getattr(original, "sqlstate", None),
        str(original),
        # Refused, reset and timed-out connects arrive as the operating system's own errors. asyncpg loses its
        # own thread (InternalClientError) over a connection whose end it has read, and not yet acted upon.
        disconnected=error.connection_invalidated
        if isinstance(error, DBAPIError)
        else isinstance(original, OSError | InternalClientError) or _closed(original),
        timed_out=isinstance(original, TimeoutError),
        on_replica=on_replica,
    )


def _closed(error: BaseException | None) -> bool:
    """The driver's own word for it, raw, from a connection that broke while it was being set up."""
    return isinstance(error, InterfaceError) and "closed" in str(error)


def driver_of(connection: Connection) -> Any:
    """The driver's own connection, asyncpg's."""
    return connection.connection.driver_connection


def abandon(connection: Connection) -> None:
    """Close at once, without the goodbye that a dead node would never answer."""
    if connection.closed or connection.invalidated:
        return  # to ask it for its driver's connection would open another
    with suppress(Exception):
        terminate = getattr(driver_of(connection), "terminate", None)
        if terminate is not None:
            terminate()


def demoted(connection: Connection) -> bool:
    """Whether the server has said, unasked, that it is in recovery (PostgreSQL 14 and later; asyncpg)."""
    settings = getattr(driver_of(connection), "get_settings", None)
    return settings is not None and getattr(settings(), "in_hot_standby", None) == "on"


def _run_driver(connection: Any, sql: str) -> None:
    """Run a script on the driver's own connection, one round trip, from inside the pool's greenlet."""
    connection.run_async(lambda driver: driver.execute(sql))


def fence(connection: Connection) -> None:
    """Make a replica's connection refuse writes for good: the server may be promoted while it is pooled."""
    if _FENCED in connection.info:
        return
    try:
        _run_driver(connection.connection.dbapi_connection, _FENCE)
    except BaseException:
        abandon(connection)
        connection.close()
        raise
    connection.info[_FENCED] = True


def checked_out(pool: Pool) -> int:
    """Connections in use; 0 for pools that do not count them."""
    count = getattr(pool, "checkedout", None)
    return count() if count is not None else 0


def idle(pool: Pool) -> bool:
    """Whether the pool has an open connection to give at once."""
    count = getattr(pool, "checkedin", None)
    return count is not None and count() > 0


def capacity(pool: Pool) -> float:
    """The most connections this pool opens; infinite for pools without a limit."""
    size = getattr(pool, "size", None)
    overflow = getattr(pool, "_max_overflow", -1)  # there is no public name for it
    return size() + overflow if size is not None and overflow >= 0 else float("inf")


def announce_commit(connection: Connection) -> None:
    """COMMIT is about to be sent: whoever asked for it hears of it now."""
    before = connection.info.pop(BEFORE_COMMIT, None)
    if before is not None:
        connection.info[_COMMIT] = before()


class _Announced(RootTransaction):
    __slots__ = ()

    def commit(self) -> None:
        if self.is_active:
            announce_commit(self.connection)
        super().commit()


class _AnnouncedTwoPhase(_Announced, TwoPhaseTransaction):
    __slots__ = ()


class AnnouncingConnection(Connection):
    """A connection that may write, and says so before each COMMIT.

    Not by way of SQLAlchemy's commit event: an engine that has listeners looks for those of every event at every
    statement, an eighth of what a write costs.
    """

    def begin(self) -> RootTransaction:
        """As `Connection.begin`."""
        return super().begin() if self.in_transaction() else _Announced(self)

    def begin_twophase(self, xid: Any | None = None) -> TwoPhaseTransaction:
        """As `Connection.begin_twophase`."""
        if self.in_transaction():
            return super().begin_twophase(xid)
        return _AnnouncedTwoPhase(self, self.engine.dialect.create_xid() if xid is None else xid)


def hear_failure(connection: Connection, error: BaseException) -> None:
    """A statement failed: if it was a COMMIT and the server said so itself, nothing was committed.

    A cancelled COMMIT, or one whose connection broke, may have succeeded: it stays in doubt.
    """
    commit = connection.info.pop(_COMMIT, None)
    if commit is not None and getattr(getattr(error, "orig", error), "sqlstate", None) is not None:
        commit.refused()
    if connection.dialect.name == "sqlite":
        sqlite.allow_writes(connection)


def note_statement(connection: Connection, statement: str) -> None:
    """Note whether a read session's statement may outlive it."""
    if not plain(statement):
        touch(connection)


def touch(connection: Connection) -> None:
    """Note that this connection must be reset before its next use."""
    connection.info[_TOUCHED] = True


def untouched(connection: Connection) -> bool:
    """Whether this connection goes back to its pool as it came: nothing will be sent to reset it."""
    return not (connection.closed or connection.invalidated or _TOUCHED in connection.info)


def drop_closed(_connection: Any, record: Any, _proxy: Any) -> None:
    """What pool_pre_ping asks the server, the driver mostly knows: this connection was closed."""
    is_closed = getattr(record.driver_connection, "is_closed", None)
    if is_closed is not None and is_closed():
        raise DisconnectionError


def reset_touched(connection: Any, record: Any, state: Any) -> None:
    """AUTOCOMMIT and session locks outlive the session: undo what it may have left, in one trip."""
    if record is None or not record.info.pop(_TOUCHED, False):
        return
    if state.asyncio_safe and not state.terminate_only:
        end = "ROLLBACK; " if record.driver_connection.is_in_transaction() else ""
        fence = f"; {_FENCE}" if _FENCED in record.info else ""
        _run_driver(connection, end + _RESET + fence)


def close_touched(connection: Any, record: Any, state: Any) -> None:
    """The owner of an engine may have set up its connections, which a reset would undo: open a new one."""
    if record is not None and record.info.pop(_TOUCHED, False) and state.asyncio_safe:
        record.invalidate()
