"""The errors a caller may meet: one base, and one class for each remedy."""

from sqlalchemy.exc import SQLAlchemyError


class RoutingError(SQLAlchemyError):
    """Base of lagwise's own errors; a `SQLAlchemyError`, so handlers that exist already catch it.

    Messages name nodes, settings and remedies; never a URL, a host or a password.
    """

    __module__ = "lagwise"


class NoPrimary(RoutingError):
    """No node can be proven to be the one primary, or the primary was lost; nothing was written.

    Retry after the failover.
    """

    __module__ = "lagwise"


class NoReplica(RoutingError):
    """No replica is fresh enough for this read, and the policy does not let the read use the primary.

    Or the session holds on to its connection (a transaction, a setting, a cursor), and the node of that connection
    lacks the client's own write: read in a new session. Or the replica gave no connection, and what the session asked
    for could not go elsewhere.
    """

    __module__ = "lagwise"


class ReadOnly(RoutingError):
    """A write was attempted in a read session; PostgreSQL or lagwise refused it, and nothing was written.

    Open the session with `db.write` (in FastAPI: `WriteSession`) instead. Where PostgreSQL refused, the
    driver's own error is the `__cause__`.
    """

    __module__ = "lagwise"


class InvalidToken(RoutingError):
    """The text is not a causal token: malformed, of another version, or not signed by a known secret."""

    __module__ = "lagwise"


class NotOpen(RoutingError):
    """The Router is not running, or was opened in another event loop, thread or process.

    Use it inside `async with router:` (in FastAPI: `lifespan(router)`).
    """

    __module__ = "lagwise"


class NotCaughtUp(RoutingError, TimeoutError):
    """Not every replica has what `db.caught_up()` waits for, and the time is over: the message names who is behind.

    Wait longer, mend those replicas, or `db.drain()` them.
    """

    __module__ = "lagwise"


class StatementTimeout(RoutingError, TimeoutError):
    """A statement took longer than the `timeout` that its session was opened with; the server has stopped it.

    In a transaction nothing of it is left. A statement that commits by itself may have done so just before.
    """

    __module__ = "lagwise"
