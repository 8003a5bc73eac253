"""lagwise's own errors for failures that the database's errors do not explain."""

from lagwise._decide.failure import Failure
from lagwise.errors import NoPrimary, ReadOnly, RoutingError

WAY_OUT = "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."


def cut_off(node: str) -> NoPrimary:
    """The error of a write that waited for a silent node, before its COMMIT."""
    return NoPrimary(
        f"{node} does not answer, and the connection of this write was cut off before COMMIT: the server rolls its "
        "transaction back, and nothing of it was written. Retry."
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
