"""Read sessions that refuse writes on SQLite, so that unit tests of applications catch what PostgreSQL would."""

import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine


def refuse_writes(engine: Engine) -> None:
    """Make every statement of this engine read-only.

    Around each statement rather than each session: an in-memory database has one connection, which a
    write session may be using in turn. Source: https://www.sqlite.org/pragma.html#pragma_query_only
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "before_cursor_execute")
    def _close(_connection: Connection, cursor: Any, *_: Any) -> None:
        cursor.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "after_cursor_execute")
    def _open(connection: Connection, *_: Any) -> None:
        allow_writes(connection)


def allow_writes(connection: Connection) -> None:
    """Allow writes again; after a failed statement no event does it."""
    if connection.dialect.name != "sqlite":
        return
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA query_only = OFF")
    cursor.close()


def refused(error: BaseException | None) -> bool:
    """Whether SQLite refused a write on a read-only connection."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_READONLY
