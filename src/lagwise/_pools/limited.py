"""A connection whose statements may be limited in time, for as long as one session has it."""

from sqlalchemy.engine import Connection

from lagwise._pools.driver import driver_of
from lagwise._pools.internals import CallLimit


class LimitedConnection(Connection):
    """Limits each statement by the driver's own time-out: nothing is set on the server."""

    limit: float | None = None
    """Seconds that each statement may take; None where the session has no limit of its own."""
    limited: CallLimit | None = None
    """The limit that the driver has at this moment."""

    def restrict(self, seconds: float) -> None:
        """Limit each statement from here on; only the driver of PostgreSQL can."""
        if self.dialect.name == "postgresql":
            self.lift()
            self.limit, self.limited = seconds, CallLimit(driver_of(self), seconds)

    def lift(self) -> None:
        """Lift the limit until the next statement: a COMMIT that is cut off would be in doubt, a reset undone."""
        limited, self.limited = self.limited, None
        if limited is not None:
            limited.end()
