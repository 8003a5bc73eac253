"""lagwise's own errors for failures that the database's errors do not explain."""

from sqlalchemy.exc import TimeoutError as PoolTimeout

from lagwise._decide.failure import Failure
from lagwise._pools.driver import WaitsForItself
from lagwise.errors import NoPrimary, ReadOnly, RoutingError

WAY_OUT = "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."


def cut_off(node: str) -> NoPrimary:
    """The error of a write that waited for a silent node, before its COMMIT."""
    return NoPrimary(
        f"{node} does not answer, and the connection of this write was cut off before COMMIT: the server rolls its "
        "transaction back, and nothing of it was written. Retry."
    )


def in_recovery(node: str) -> NoPrimary:
    """The error of a write whose connection leads to a node that has become a replica."""
    return NoPrimary(f"{node} is in recovery: it is not the primary any more; nothing was sent. Retry.")


def exhausted(node: str, used: int, most: float, timeouts: int) -> PoolTimeout:
    """The error of a session that got no connection in time: `used` of `most`, and `timeouts` such errors so far."""
    return PoolTimeout(
        f"no connection to {node} became free in time: {used} of {most:g} are in use, {timeouts} sessions have given "
        "up; sessions are held too long, or pool_size is too small"
    )


def waits_for_itself(node: str, held: int, most: float) -> WaitsForItself:
    """The error of a task that holds so many connections of a full pool, and opens a session that needs another."""
    return WaitsForItself(
        f"this request holds {held} connections to {node} and opens a session that needs another, while all {most:g} "
        "of the pool are in use: the sessions would wait for each other. Use one session for what belongs together, "
        "or end one before the next begins."
    )


def translation(failure: Failure, node: str, *, reads: bool, demoted: bool) -> RoutingError | None:
    """The error that says to the caller what the database's own does not, or None.

    Args:
        failure: what failed.
        node: the name of the node it failed on.
        reads: whether the session may only read.
        demoted: whether the node has said that it is no longer the primary.
    """
    if failure is Failure.READ_ONLY and reads:
        return ReadOnly(
            f"a read session on {node} attempted a write, or what only a primary can do, and the database refused it. "
            + WAY_OUT
        )
    if failure is Failure.READ_ONLY and demoted:
        return NoPrimary(f"{node} is read-only: it is not the primary any more and refused the write. Retry.")
    if failure is Failure.NO_TRANSACTION and reads:
        return RoutingError(
            "a savepoint or a server-side cursor needs a transaction, and plain reads run without one; "
            "open the session with db.read(snapshot=True), in FastAPI reads(snapshot=True)."
        )
    return None
