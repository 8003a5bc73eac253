"""What SQLAlchemy and the driver say: of an error, of a connection, of the server behind it."""

from contextlib import suppress
from typing import Any

from asyncpg import InterfaceError, InternalClientError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from lagwise._decide.failure import Failure, classify
from lagwise._pools import sqlite


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


def run_driver(connection: Connection, sql: str) -> None:
    """Run a script on the driver's own connection, one round trip, from inside the pool's greenlet."""
    adapter: Any = connection.connection.dbapi_connection
    adapter.run_async(lambda driver: driver.execute(sql))


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
