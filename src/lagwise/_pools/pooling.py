"""What a connection keeps between two transactions: all of it, or nothing, where a pooler hands its server on."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from lagwise._decide.effect import Effect
from lagwise._given import instead
from lagwise.errors import RoutingError

Mode = Literal["session", "transaction"]
MODES = get_args(Mode)

RESTORES = "lagwise.restores"
"""The key in a connection's `info` of the script that makes the connection as it was when new."""
_LASTS = Effect.TOUCHES | Effect.RESETS | Effect.SPOILS


class Pooling:
    """`pooling="session"`: a connection has a server process of its own. What is set there lasts until it is reset."""

    mode: Mode = "session"
    # A standby runs no statement at all under SERIALIZABLE, which ALTER DATABASE or ALTER ROLE may have made the
    # default.
    understood: Mapping[str, str] = {"default_transaction_isolation": "read committed"}
    """What the monitor sets in its connection."""
    fenced: Mapping[str, str] = {**understood, "default_transaction_read_only": "on"}
    """What is set in a connection that reads."""
    level = "autocommit"
    """What `relax()` makes of the isolation level, in the words of SQLAlchemy's connection to the driver."""
    keeps = True
    """Whether a connection keeps its server process, and with it what statements have set."""
    framed = False
    """Whether each statement of a read, and of the monitor, runs in a READ ONLY transaction."""

    def prepare(self, kw: dict[str, Any]) -> None:
        """Change the arguments with which the driver connects."""

    def settle(self, dialect: Any, adapter: Any) -> None:
        """End the transaction that a listener left open, and `relax()`. The listener's settings are meant to stay.

        SQLAlchemy begins a transaction for each cursor.
        """
        adapter.commit()
        self.relax(dialect, adapter)

    def relax(self, dialect: Any, adapter: Any) -> None:
        """Let a connection that reads, or the monitor's, run plain statements. Nothing is sent."""
        dialect.set_isolation_level(adapter, "AUTOCOMMIT")
        dialect.set_readonly(adapter, False)

    def refuse(self, effect: Effect) -> None:
        """Raise `RoutingError` for what would be left to a stranger."""

    def restoration(self, info: Mapping[Any, Any]) -> str | None:
        """The script, one round trip, that makes a connection as it was when new; None: it can only be closed.

        `info` is the connection's. What the application's `connect` listeners have set is set again; a listener's
        prepared statement, temporary table or LISTEN cannot be made again by a script.
        """
        script: str | None = info.get(RESTORES)
        return script


class OfTransactions(Pooling):
    """`pooling="transaction"`: a pooler gives each transaction to whichever of its server processes is free.

    So nothing may be set that outlives a transaction: it would reach strangers, and be missed by its own session.
    Statements have no names; the driver parses them anew. A read is one statement in a READ ONLY transaction, since
    no fence can be set beforehand. It ends with ROLLBACK, which also undoes what unseen code has set.
    """

    mode = "transaction"
    understood: Mapping[str, str] = {}
    fenced: Mapping[str, str] = {}
    level = "read_committed"
    keeps = False
    framed = True

    def prepare(self, kw: dict[str, Any]) -> None:
        """Switch the caches of prepared statements off, and their names."""
        kw.update(statement_cache_size=0, prepared_statement_cache_size=0, prepared_statement_name_func=str)

    def settle(self, dialect: Any, adapter: Any) -> None:
        """End the transaction that a listener left open, and `relax()`."""
        adapter.rollback()
        self.relax(dialect, adapter)

    def relax(self, dialect: Any, adapter: Any) -> None:
        """Let each statement begin a READ ONLY transaction. Nothing is sent."""
        dialect.set_isolation_level(adapter, "READ COMMITTED")
        dialect.set_readonly(adapter, True)

    def refuse(self, effect: Effect) -> None:
        """Raise `RoutingError` for a statement that sets what outlives its transaction."""
        if effect & _LASTS:
            raise RoutingError(
                'with pooling="transaction" the server process belongs to this session for one transaction, and this '
                "statement leaves something in it: a setting, a lock, a prepared statement, LISTEN, a temporary table. "
                "Nothing was sent. Use what ends with the transaction: SET LOCAL, set_config(..., true), "
                "pg_advisory_xact_lock(), CREATE TEMP TABLE ... ON COMMIT DROP; or a connection that does not go "
                "through the pooler."
            )

    def restoration(self, info: Mapping[Any, Any]) -> str:
        """Nothing: the server process may be a stranger's by now."""
        return ""


def pooling_of(mode: str) -> Pooling:
    """The pooling of this name. Raises `ValueError` for any other."""
    if mode not in MODES:
        raise ValueError(f'pooling must be "session" or "transaction"{instead(mode)}')
    return OfTransactions() if mode == "transaction" else Pooling()
