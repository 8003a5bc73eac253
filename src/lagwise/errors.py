"""The errors a caller may meet: one base, one leaf for each thing that can be done about it."""

from sqlalchemy.exc import SQLAlchemyError


class RoutingError(SQLAlchemyError):
    """Base of every error lagwise raises; a `SQLAlchemyError`, so handlers that exist already catch it.

    Messages name nodes, settings and remedies; never a URL, a host or a password.
    """

    __module__ = "lagwise"


class NoPrimary(RoutingError):
    """No node can be proven to be the one primary; nothing was sent. Retry after the failover."""

    __module__ = "lagwise"


class NoReplica(RoutingError):
    """No replica is fresh enough for this read and the policy does not let it use the primary."""

    __module__ = "lagwise"


class ReadOnly(RoutingError):
    """A write was attempted in a read session; PostgreSQL refused it and nothing was written.

    Open the session with `db.write` (in FastAPI: `WriteSession`) instead. The driver's own error is
    the `__cause__`.
    """

    __module__ = "lagwise"


class InvalidToken(RoutingError):
    """The text is not a causal token: malformed, of another version, or not signed by a known secret."""

    __module__ = "lagwise"


class NotOpen(RoutingError):
    """The Router is not running. Use it inside `async with router:` (in FastAPI: `lifespan(router)`)."""

    __module__ = "lagwise"
