"""What the errors of SQLAlchemy and the driver mean, however one wraps the other."""

import pytest
from asyncpg import InterfaceError, InternalClientError, PostgresError  # type: ignore[import-untyped]
from sqlalchemy.exc import DBAPIError

from lagwise._decide.failure import Failure
from lagwise._pools.driver import judge

# asyncpg has read the server's last message, and does not know yet that the connection has ended.
ENDING = "cannot switch to state 15; another operation (2) is in progress"


def wrapped(cause: Exception) -> DBAPIError:
    """The error as SQLAlchemy raises it: around its adapter's, whose cause is the driver's."""
    adapted = Exception(str(cause))
    adapted.__cause__ = cause
    return DBAPIError("SELECT 1", None, adapted)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (InternalClientError(ENDING), Failure.LOST),
        (wrapped(InternalClientError(ENDING)), Failure.LOST),
        (InterfaceError("connection is closed"), Failure.LOST),
        (wrapped(InterfaceError("the server expects 1 argument")), Failure.CALLER),
        (ConnectionResetError(), Failure.LOST),
        (TimeoutError(), Failure.TIMEOUT),
        (wrapped(PostgresError("no state")), Failure.CALLER),
    ],
)
def test_a_lost_connection_is_told_from_a_callers_mistake(error: Exception, failure: Failure) -> None:
    """A connection that the server is ending is lost: the read runs on another, and no pool keeps it."""
    assert judge(error, on_replica=False) is failure
