"""What a failure means for the session that met it and for the node that caused it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Failure(StrEnum):
    """The kinds of failure the router tells apart."""

    LOST = "lost"
    """The connection, or the node behind it, is gone. Another node may answer."""
    TIMEOUT = "timeout"
    """The driver's time-out ended the statement. Another node is tried once: the statement itself may be slow."""
    CONFLICT = "conflict"
    """A replica cancelled the read in favour of replay. The node is well; another may answer."""
    CONNECT = "connect"
    """No connection could be made. Another node may let it in."""
    STALE_PLAN = "stale-plan"
    """The table changed under a prepared statement. The same node may run it again."""
    FORGOTTEN = "forgotten"
    """The server does not know a statement that the driver has prepared: a pooler may be in between. Nothing ran."""
    NOT_THERE_YET = "not-there-yet"
    """A replica does not have yet what the statement names. The primary may."""
    BUSY = "busy"
    """The node takes no more connections or starts up. Another node may answer."""
    READ_ONLY = "read-only"
    """A write in a read session. No other node would take it."""
    NO_TRANSACTION = "no-transaction"
    """A cursor or savepoint where no transaction is open."""
    CALLER = "caller"
    """Anything else: an error of the statement itself, raised as it is."""

    @property
    def elsewhere(self) -> bool:
        """Whether the same read may succeed on another node."""
        return self in _ELSEWHERE


_ELSEWHERE = {
    Failure.CONNECT, Failure.LOST, Failure.TIMEOUT, Failure.CONFLICT, Failure.BUSY, Failure.FORGOTTEN,
}  # fmt: skip
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE = {
    "57P01": Failure.LOST,  # admin_shutdown
    "57P02": Failure.LOST,  # crash_shutdown
    "57P03": Failure.BUSY,  # cannot_connect_now: starting up
    "53300": Failure.BUSY,  # too_many_connections
    "25006": Failure.READ_ONLY,  # read_only_sql_transaction
    "25P01": Failure.NO_TRANSACTION,  # no_active_sql_transaction
}
FORGOTTEN_STATE = "26000"
"""invalid_sql_statement_name."""
_DRIVERS_OWN = "__asyncpg_"  # in the names of the statements that the driver prepares
# serialization_failure and deadlock_detected: on a replica both are conflicts with replay.
_CONFLICTS = {"40001", "40P01"}
# undefined_table, undefined_column, undefined_function, undefined_object, invalid_schema_name.
_NOT_THERE_YET = {"42P01", "42703", "42883", "42704", "3F000"}
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
    if sqlstate == "0A000" and "cached" in text and "plan" in text:
        return Failure.STALE_PLAN
    if sqlstate == FORGOTTEN_STATE and (_DRIVERS_OWN in text or text.startswith("unnamed")):
        return Failure.FORGOTTEN
    if on_replica and sqlstate in _NOT_THERE_YET:
        return Failure.NOT_THERE_YET
    if on_replica and sqlstate in _REFUSED_IN_RECOVERY and ("recovery" in text or "standby" in text):
        return Failure.READ_ONLY
    return Failure.CALLER


class Kind(StrEnum):
    """Why a node does not answer the monitor; a mistake in the configuration is distinguished from an outage."""

    PASSWORD = "wrong-password"  # noqa: S105 - a word for a refusal
    LOGIN = "login-refused"
    DATABASE = "no-such-database"
    HOST = "unknown-host"
    OPTION = "unknown-option"
    DRIVER = "driver-missing"
    TLS = "tls-failed"
    PRIVILEGE = "no-privilege"
    SETUP = "setup-failed"
    POOLER = "transaction-pooler"
    PARAMETER = "startup-parameter-refused"
    STATEMENTS = "statement-pooler"
    FULL = "too-many-connections"
    STARTING = "starting-up"
    STOPPING = "shutting-down"
    REFUSED = "refused"
    SILENT = "silent"
    LOST = "lost"
    OTHER = "failed"

    @property
    def mistake(self) -> bool:
        """Whether waiting does not help: the application's settings, or the server's, must change."""
        return self in _REMEDIES

    @property
    def remedy(self) -> str:
        """What to do about a mistake, as half a sentence; empty for the other kinds, which end without a change."""
        return _REMEDIES.get(self, "")


_REMEDIES = {
    Kind.PASSWORD: "check the user and the password in its URL",
    Kind.LOGIN: "check the user in its URL, and pg_hba.conf",
    Kind.DATABASE: "check the database in its URL",
    Kind.HOST: "check the host in its URL, and the resolver",
    Kind.OPTION: "check the options in its URL and connect_args: the driver's names are not those of libpq",
    Kind.DRIVER: "install the driver that its URL names",
    Kind.TLS: "check the ssl option in its URL, and the certificates",
    Kind.PRIVILEGE: "grant the monitor's functions to its user",
    Kind.SETUP: "see the log: a listener or an option of this application failed",
    Kind.POOLER: 'a pooler in transaction mode stands before it: say Router(..., pooling="transaction")',
    Kind.PARAMETER: "leave server_settings out, or let PgBouncer pass over them: ignore_startup_parameters",
    Kind.STATEMENTS: "a pooler in statement mode stands before it: set pool_mode = transaction there",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a node could not be read. Safe to show: no text of the exception, which may hold a host or a name.

    Attributes:
        kind: what it means, in a word.
        error: the class name of the exception that says most: the driver's rather than its wrapper's.
        sqlstate: what the server answered, or None when no server did.
    """

    kind: Kind
    error: str
    sqlstate: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}, {self.error}{f' {self.sqlstate}' if self.sqlstate else ''}"


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_KIND_BY_STATE = {
    "28P01": Kind.PASSWORD,
    "28000": Kind.LOGIN,  # no such role, no entry in pg_hba.conf, TLS demanded
    "3D000": Kind.DATABASE,
    "42501": Kind.PRIVILEGE,
    "42704": Kind.OPTION,  # a startup parameter that the server does not know
    "22023": Kind.OPTION,  # a value that a startup parameter does not take
    "53300": Kind.FULL,
    "57P01": Kind.STOPPING,
    "57P02": Kind.STOPPING,
    "57P03": Kind.STARTING,
}
_POOLERS = "08P01"
# PgBouncer says most of what it refuses by one SQLSTATE, and by these words.
_KIND_BY_WORDS = {
    "server login failed": Kind.LOST,  # between the pooler and its server; the pooler's log tells more
    "password authentication failed": Kind.PASSWORD,
    "no such user": Kind.PASSWORD,
    "no such database": Kind.DATABASE,
    "no more connections allowed": Kind.FULL,
    "not allowed in statement pooling mode": Kind.STATEMENTS,
}
# By the names of an exception's classes, the first that fits: gaierror and SSLError are OSErrors, too.
_KIND_BY_CLASS = {
    "TransactionPooler": Kind.POOLER,
    "WentBack": Kind.STARTING,
    "ParameterRefused": Kind.PARAMETER,
    "gaierror": Kind.HOST,
    "SSLError": Kind.TLS,
    "CertificateError": Kind.TLS,
    "TimeoutError": Kind.SILENT,
    "ConnectionRefusedError": Kind.REFUSED,
    "ConnectionDoesNotExistError": Kind.LOST,
    "ConnectionError": Kind.LOST,
    "OSError": Kind.LOST,
    "ImportError": Kind.DRIVER,
    "NoSuchModuleError": Kind.DRIVER,
    "ClientConfigurationError": Kind.OPTION,
    "ArgumentError": Kind.OPTION,
    "TypeError": Kind.OPTION,
    "PostgresError": Kind.OTHER,
    "InterfaceError": Kind.OTHER,
    "DBAPIError": Kind.OTHER,
    "InternalClientError": Kind.OTHER,
}
_LONGEST_CHAIN = 8


def cause_of(error: BaseException) -> Cause:
    """What kept a node from being read, judged by classes and SQLSTATE along the chain of causes.

    SQLAlchemy wraps what the driver raised (`orig`), the driver what the system did (`__cause__`).
    An exception that neither the driver nor the operating system raises comes from the application's own code.

    >>> str(cause_of(ConnectionRefusedError(111, "to 10.0.0.7")))
    'refused, ConnectionRefusedError'
    >>> str(cause_of(ConnectionError('PostgreSQL server at "db:5432" rejected SSL upgrade')))
    'tls-failed, ConnectionError'
    """
    chain = list(_chain(error))
    name = type(chain[-1]).__name__
    for each in reversed(chain):
        state = getattr(each, "sqlstate", None)
        if isinstance(state, str):
            kind = _KIND_BY_STATE.get(state, Kind.LOST if state.startswith("08") else Kind.OTHER)
            if state == _POOLERS:
                kind = next((told for words, told in _KIND_BY_WORDS.items() if words in str(each)), kind)
            return Cause(kind, type(each).__name__, state)
    for each in reversed(chain):
        names = {kind.__name__ for kind in type(each).__mro__}
        for known, kind in _KIND_BY_CLASS.items():
            if known in names:
                # asyncpg has no class of its own for a server without TLS.
                untold = kind is Kind.LOST and "rejected SSL upgrade" in str(each)
                return Cause(Kind.TLS if untold else kind, type(each).__name__)
    return Cause(Kind.SETUP, name)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those it stands for, outermost first; a cancellation is a timer's means, not a cause."""
    following: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if following is None or (following is not error and not isinstance(following, Exception)):
            return
        yield following
        original = getattr(following, "orig", None)
        following = original if isinstance(original, BaseException) else following.__cause__
