"""What a failure means for the session that met it and for the node that caused it."""

from enum import StrEnum


class Failure(StrEnum):
    """The kinds of failure the router tells apart."""

    LOST = "lost"
    """The connection, or the node behind it, is gone. Another node may answer."""
    TIMEOUT = "timeout"
    """The driver waited long enough. Another node may be quicker; once, for the statement may be the slow one."""
    CONFLICT = "conflict"
    """A replica cancelled the read in favour of replay. The node is well; another may answer."""
    BUSY = "busy"
    """The node takes no more connections or starts up. Another node may answer."""
    READ_ONLY = "read-only"
    """A write in a read session. No other node would take it."""
    NO_TRANSACTION = "no-transaction"
    """A cursor or savepoint where no transaction is open."""
    CALLER = "caller"
    """Anything else: the statement's own affair."""

    @property
    def elsewhere(self) -> bool:
        """Whether the same read may succeed on another node."""
        return self in {Failure.LOST, Failure.TIMEOUT, Failure.CONFLICT, Failure.BUSY}


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE = {
    "57P01": Failure.LOST,  # admin_shutdown
    "57P02": Failure.LOST,  # crash_shutdown
    "57P03": Failure.BUSY,  # cannot_connect_now: starting up
    "53300": Failure.BUSY,  # too_many_connections
    "25006": Failure.READ_ONLY,  # read_only_sql_transaction
    "25P01": Failure.NO_TRANSACTION,  # no_active_sql_transaction
}
# serialization_failure and deadlock_detected: on a replica both are conflicts with replay.
_CONFLICTS = {"40001", "40P01"}
# What a standby says, beside 25006, to what it cannot do: unlogged tables and SERIALIZABLE, large objects.
_REFUSED_IN_RECOVERY = {"0A000", "XX000"}


def classify(
    sqlstate: str | None, text: str, *, disconnected: bool, timed_out: bool = False, on_replica: bool
) -> Failure:
    """Judge a failed statement or connect by its SQLSTATE (None when the driver saw none) and text.

    A serialization failure or a deadlock is a recovery conflict on a replica, and on the primary the
    caller's own: only the caller knows what it had read before.
    """
    if sqlstate in _CONFLICTS:
        return Failure.CONFLICT if on_replica else Failure.CALLER
    if sqlstate in _BY_STATE:
        return _BY_STATE[sqlstate]
    if timed_out:
        return Failure.TIMEOUT
    if disconnected or (sqlstate or "").startswith("08"):
        return Failure.LOST
    if on_replica and sqlstate in _REFUSED_IN_RECOVERY and ("recovery" in text or "standby" in text):
        return Failure.READ_ONLY
    return Failure.CALLER
