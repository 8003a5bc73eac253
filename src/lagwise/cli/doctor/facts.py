"""What a node has answered, as values: all that verdicts are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lagwise._decide.failure import Cause
from lagwise._decide.node import Reading, Role
from lagwise._pools.options import DEFAULTS
from lagwise.cli.doctor.words import shown
from lagwise.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the application intends.

    Attributes:
        workers: its processes, each with a Router of its own.
        pool_size: the connections of each pool; 0 for no limit, as SQLAlchemy has it.
        max_overflow: those beyond; -1 for no limit.
        framed: whether it says `pooling="transaction"`.
        max_lag: seconds, as in its Policy.
        system: the system identifier that it pins; 0 for none.
    """

    workers: int = 1
    pool_size: int = DEFAULTS["pool_size"]
    max_overflow: int = DEFAULTS["max_overflow"]
    framed: bool = False
    max_lag: float = Policy().max_lag
    system: int = 0

    @property
    def unbounded(self) -> bool:
        """Whether its pools open as many connections as there are sessions."""
        return self.pool_size == 0 or self.max_overflow < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the role in the URL may do; `role` is quoted as SQL wants it."""

    role: str
    stats: bool
    """It reads what `pg_stat_wal_receiver` and `pg_stat_replication` show: pg_monitor, or pg_read_all_stats."""
    functions: tuple[str, ...] = ()
    """The functions of the monitor that it may not execute."""
    views: tuple[str, ...] = ()
    """The views of the monitor that it may not read."""
    language: bool = True
    """It may use plpgsql, in which a commit tells its position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A replica's WAL receiver that runs; what cannot be seen without the privilege is None."""

    pid: int | None = None
    """The server's process: another one each time that it begins anew."""
    status: str | None = None
    slot: str | None = None
    silent: float | None = None
    """Seconds since the last message from its upstream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How a replica applies what it receives."""

    paused: bool = False
    receiver: Receiver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Senders:
    """The replicas that a node sends to: all, those that stream, those whose state cannot be seen."""

    all: int = 0
    streaming: int = 0
    hidden: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot. `status` is PostgreSQL's `wal_status`; `kept` and `safe` are bytes."""

    name: str
    active: bool
    status: str | None = None
    safe: int | None = None
    kept: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Who is connected to a server, and how many may be.

    Attributes:
        own: connections of this role to this database: the application's, if it runs already.
        others: all other clients'.
        role_limit: what `ALTER ROLE ... CONNECTION LIMIT` says, -1 for no limit.
        database_limit: likewise for the database.
    """

    own: int
    others: int
    role_limit: int = -1
    database_limit: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a replica is behind the primary. `seconds` is None where nothing tells."""

    bytes: int
    seconds: float | None
    caught_up: bool
    """Whether it reached the primary's position while the doctor waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """How many of the statements in pg_stat_statements a read session would refuse."""

    locking: int
    sequences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One node. What could not be asked, or makes no sense for its role, is None.

    Attributes:
        name: the node's.
        expected: the role that it is configured for.
        cause: why it was not reached, or has stopped to answer.
        unanswered: the questions that failed alone, and why.
        reading: role, system, timeline and position, as the monitor of a Router reads them.
        version: the server's, as its number: 150018 is 15.18.
        settings: by name, in PostgreSQL's own units: milliseconds, megabytes.
        database: which of its databases the URL leads to, by its OID: the same on the primary and its replicas.
        pooler: "session" or "transaction" where one is in between.
        servers: which servers several connections have led to; `connected` is how many there were.
        round_trip: seconds, the median of several.
        clock: seconds by which the node's clock is ahead of this machine's; `clock_error` either way.
        unlogged: the first unlogged tables; `unlogged_count` is all.
    """

    name: str
    expected: Role
    cause: Cause | None = None
    unanswered: tuple[tuple[str, Cause], ...] = ()
    reading: Reading | None = None
    version: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    database: int | None = None
    access: Access | None = None
    replay: Replay | None = None
    senders: Senders | None = None
    slots: tuple[Slot, ...] | None = None
    connections: Connections | None = None
    pooler: str | None = None
    servers: frozenset[tuple[int, int, int]] = frozenset()
    connected: int = 0
    round_trip: float | None = None
    clock: float | None = None
    clock_error: float = 0.0
    lag: Lag | None = None
    unlogged: tuple[str, ...] = ()
    unlogged_count: int | None = None
    statements: Statements | None = None

    @property
    def role(self) -> Role | None:
        """What it says it is."""
        return self.reading.role if self.reading is not None else None

    @property
    def is_replica(self) -> bool:
        """Whether it says that it is a replica."""
        return self.role is Role.REPLICA

    @property
    def is_primary(self) -> bool:
        """Whether it says that it is a primary."""
        return self.role is Role.PRIMARY

    @property
    def lacks_stream(self) -> bool:
        """Whether it is a replica whose receiver is missing, or does something else than stream."""
        if self.replay is None:
            return False
        receiver = self.replay.receiver
        return receiver is None or receiver.status not in {None, "streaming"}

    def number(self, setting: str, default: int = 0) -> int:
        """A setting that is a whole number; `default` where the server has none of that name."""
        return int(self.settings.get(setting, default))


def _role(role: str, hidden: tuple[str, ...]) -> str:
    censored = shown(role, hidden)
    return role if censored == role else "<the user in its URL>"  # where the password is the same: a GRANT needs it


def censored(facts: Facts, hidden: Iterable[str]) -> Facts:
    """The facts with names fit to be shown: a slot, a table or a role may be named after a host."""
    texts = tuple(hidden)
    access, slots = facts.access, facts.slots
    return replace(
        facts,
        access=None if access is None else replace(access, role=_role(access.role, texts)),
        slots=None if slots is None else tuple(replace(slot, name=shown(slot.name, texts)) for slot in slots),
        unlogged=tuple(shown(name, texts) for name in facts.unlogged),
    )
