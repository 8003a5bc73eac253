"""The limit of a session's statements: the driver's own time-out, for as long as the session has the connection."""

import asyncio
import math
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from lagwise._decide.failure import Failure
from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon, driver_of, judge
from lagwise.errors import StatementTimeout

# Seconds that the server may take to say that it has stopped. It usually takes a round trip.
_STOPS = 0.5


def checked(timeout: float | None) -> float | None:
    """This limit, seconds. Raises `ValueError` for what is none."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a number of seconds, above 0, not {timeout!r}")
    return float(timeout)


def over_limit(error: BaseException, connection: Any, node: str) -> StatementTimeout | None:
    """The error for a statement that has run out of its session's time, or None where it is something else.

    A slow statement is no fault of its node's: neither the monitor nor the choice of later sessions hears of it.
    """
    if not isinstance(connection, PooledConnection) or connection.limit is None:
        return None
    if judge(error, on_replica=False) is not Failure.TIMEOUT:
        return None
    return StatementTimeout(
        f"a statement on {node} took longer than its limit of {connection.limit:g} s, and was stopped. "
        "Make it faster, or give it more time: timeout=..."
    )


async def stopped(connection: PooledConnection) -> bool:
    """Whether the server has stopped the statement, so that the connection is fit for use; otherwise it is closed.

    asyncpg has asked the server to cancel, over a connection of its own. The next call waits until the server has
    answered both, so that the cancellation cannot hit a later statement; and if the connection were closed before, the
    request would never be sent, and the server would go on working.
    """
    connection.lift()
    try:
        async with asyncio.timeout(_STOPS):
            await driver_of(connection).execute("SELECT 1")
    except asyncpg.PostgresError:
        pass  # an answer as well: the transaction that the statement was in has failed
    except BaseException as error:
        abandon(connection)
        if not isinstance(error, Exception):
            raise
        return False
    # A reset undoes whatever the statement has done until then.
    connection.touched = connection.failed = True
    return True
