"""What SQLAlchemy and the driver know of an error, of a connection, and of the server behind it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asyncpg import InterfaceError, InternalClientError, PostgresError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.util.concurrency import await_only

from lagwise._decide.failure import Failure, classify
from lagwise._pools import sqlite
from lagwise.errors import NoPrimary, NoReplica, RoutingError, StatementTimeout

IS_CLOSED = "lagwise.is_closed"
"""The key in a connection's `info` of the driver's answer to whether it is closed."""


class NotConnected(RoutingError):  # noqa: N818 - the event, as its siblings are named
    """A node gave no new connection: nothing was sent, so that any statement may run elsewhere.

    `original` is what SQLAlchemy, the driver or the operating system raised.
    """

    def __init__(self, message: str, original: Exception) -> None:
        super().__init__(message)
        self.original = original


class _ReplicaNotConnected(NotConnected, NoReplica):
    """It was a replica. The caller meets it where the session could not go elsewhere, and knows `NoReplica`."""

    __module__ = "lagwise"


class _PrimaryNotConnected(NotConnected, NoPrimary):
    """It was the primary, likewise."""

    __module__ = "lagwise"


def not_connected(message: str, original: Exception, *, on_replica: bool) -> NotConnected:
    """The error of a read that got no connection: also a `NoReplica`, or a `NoPrimary`, as its node is one."""
    return (_ReplicaNotConnected if on_replica else _PrimaryNotConnected)(message, original)


class OtherCluster(ConnectionError):  # noqa: N818 - the event, as its siblings are named
    """A new connection leads to a server of another cluster."""


class WentBack(ConnectionError):  # noqa: N818 - the event, as its siblings are named
    """A new connection leads to a replica that has replayed less than it has shown before: it has crashed."""


class TransactionPooler(ConnectionError):  # noqa: N818 - the event, as its siblings are named
    """A new connection's transactions run on several server processes: a pooler in transaction mode is in between."""


class ParameterRefused(ConnectionError):  # noqa: N818 - the event, as its siblings are named
    """A pooler refuses a startup parameter that the application configures: asyncpg's `server_settings`."""


class WaitsForItself(RoutingError, PoolTimeout):  # noqa: N818 - the event, as its siblings are named
    """A task holds two connections of a full pool and needs a third: its sessions would wait for each other."""


def failed_to_connect(error: Exception) -> bool:
    """Whether the server, the network or the driver raised this error; a mistake in a listener is none of these."""
    return isinstance(error, OSError | DBAPIError | PostgresError | InterfaceError | InternalClientError)


def describe(error: BaseException) -> str:
    """An error's class and SQLSTATE: its text may name hosts and passwords."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None)
    cause = original.__cause__
    name = type(cause).__name__ if isinstance(cause, PostgresError) else type(original).__name__
    return f"{name} ({state})" if state else name


def judge(error: BaseException | None, *, on_replica: bool) -> Failure:
    """What an exception from SQLAlchemy or the driver means."""
    if isinstance(error, NotConnected):
        return Failure.CONNECT
    if isinstance(error, StatementTimeout):
        return Failure.CALLER  # a TimeoutError that says nothing of the node
    original = error.orig if isinstance(error, DBAPIError) else error
    if sqlite.refused(original):
        return Failure.READ_ONLY
    # SQLAlchemy 2.1 wraps whatever the driver raises, and leaves the state of a stale plan out.
    cause = getattr(original, "__cause__", None) if isinstance(error, DBAPIError) else None
    state = getattr(original, "sqlstate", None)
    return classify(
        getattr(cause, "sqlstate", None) if state is None else state,
        str(original),
        # Refused, reset and timed-out connects arrive as the operating system's own errors. asyncpg has an
        # InternalClientError where it has read that the server ended the connection, and not yet seen it end.
        disconnected=error.connection_invalidated or isinstance(cause, InternalClientError)
        if isinstance(error, DBAPIError)
        else isinstance(original, OSError | InternalClientError) or _closed(original),
        timed_out=isinstance(original, TimeoutError),
        on_replica=on_replica,
    )


def _closed(error: BaseException | None) -> bool:
    """Whether this is asyncpg's own error for a closed connection: it comes unwrapped from a set-up that broke."""
    return isinstance(error, InterfaceError) and "closed" in str(error)


def driver_of(connection: Connection) -> Any:
    """The driver's own connection, asyncpg's."""
    return connection.connection.driver_connection


def run_driver(connection: Connection, sql: str) -> None:
    """Run a script on the driver's own connection, one round trip, from inside the pool's greenlet."""
    await_only(driver_of(connection).execute(sql))


async def execute_alone(driver: Any, query: str, **kw: Any) -> str:
    """As the driver's `execute()`, for a text that must be one statement: a second one could not be judged."""
    statement = await driver.prepare(query, **kw)
    await statement.fetch(**kw)
    said: str = statement.get_statusmsg()
    return said


def abandon(connection: Connection) -> None:
    """Close the socket at once: a graceful close would wait for the answer of a node that may be dead."""
    if connection.closed or connection.invalidated:
        return  # its attribute for the driver's connection would open another one
    with suppress(Exception):
        terminate = getattr(driver_of(connection), "terminate", None)
        if terminate is not None:
            terminate()


def is_closed(connection: Connection) -> bool:
    """Whether the driver knows that the connection is closed; pool_pre_ping would ask the server, one round trip."""
    return connection.info.get(IS_CLOSED, never)()  # type: ignore[no-any-return]


def never() -> bool:
    """For a connection whose driver cannot be asked."""
    return False


def in_hot_standby(connection: Connection) -> bool | None:
    """Whether the server reports itself in recovery, without a query; None before PostgreSQL 14.

    Not to be asked behind a pooler in transaction mode: it repeats what some server has reported once.
    """
    driver: Any = connection.connection.driver_connection
    closed: Callable[[], bool] | None = getattr(driver, "is_closed", None)
    if closed is None or closed():
        return None  # a closed connection raises instead of answering
    said = getattr(driver.get_settings(), "in_hot_standby", None)
    return None if said is None else said == "on"
