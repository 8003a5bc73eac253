"""A test's writes undone: all sessions of a Router in one transaction, which is rolled back at the end."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class InOneTransaction(Protocol):
    """What `rolled_back` takes: a `lagwise.Router`, which this package does not import."""

    def one_transaction(self) -> AbstractAsyncContextManager[None]:
        """A block whose sessions share one transaction."""
        ...


def rolled_back(db: InOneTransaction) -> AbstractAsyncContextManager[None]:
    """A block at whose end everything that the sessions of this open Router have written inside is rolled back.

    Sessions, `connect()` and `asyncpg()` share one connection to the primary, in one transaction. `commit()` releases a
    savepoint: later sessions see what was written, other connections do not. A read still raises `ReadOnly` when it
    writes. No token leaves the block. Sessions take turns; inside another such block this one is a savepoint.

    Raises:
        ValueError: the database is not PostgreSQL.
        RoutingError (lagwise's): a session waits for another one of its own task, or for ten seconds; or a session is
            still open at the end.
    """
    return db.one_transaction()
