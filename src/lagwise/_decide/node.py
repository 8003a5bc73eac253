"""One node: what it said when it was last asked, and where it stands."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isfinite

from lagwise._decide.failure import Cause
from lagwise._decide.lsn import LSN


class Role(StrEnum):
    """What a node says it is (`pg_is_in_recovery()`), whatever it was configured as."""

    PRIMARY = "primary"
    REPLICA = "replica"


class Standing(StrEnum):
    """Where a node stands: the one primary, in rotation for reads, or why it is not."""

    PRIMARY = "primary"
    IN_ROTATION = "in-rotation"
    LAGGING = "lagging"
    DRAINED = "drained"
    UNREACHABLE = "unreachable"
    OTHER_TIMELINE = "other-timeline"
    OTHER_CLUSTER = "other-cluster"
    OTHER_DATABASE = "other-database"
    RIVAL_PRIMARY = "rival-primary"
    RIVALS_REPLICA = "rivals-replica"
    SAME_SERVER = "same-server"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one node answered to one probe.

    Attributes:
        role: primary or replica.
        system: the system identifier; 0 where the server is not PostgreSQL.
        timeline: the timeline it writes (primary) or follows (replica).
        lsn: a primary's insert position, normalised; what a replica has replayed.
        at: monotonic seconds when the probe was sent: whatever was committed before is at or below a
            primary's `lsn`.
        flushed: what a primary has flushed to disk, and so handed on; 0 where that was not asked.
        started: when the server was started, microseconds since the epoch; 0 where that was not asked.
        port: the one the server listens on, whatever proxy leads to it.
        database: the OID of the database that the URL leads to, the same on a primary and its replicas; 0 where that
            was not asked.
        processes: how many processes watch this primary; 0 where that was not asked, or cannot be seen.
    """

    role: Role
    system: int
    timeline: int
    lsn: LSN
    at: float
    flushed: LSN = LSN(0)
    started: int = 0
    port: int = 0
    database: int = 0
    processes: int = 0

    @property
    def server(self) -> tuple[int, int, int] | None:
        """What tells one server from another, without any privilege: a primary and its replicas share the system."""
        return (self.system, self.started, self.port) if self.started else None

    def precedes(self, shown: "Reading") -> bool:
        """Whether this replica shows less of one history than it has shown: it has crashed, and replays its log."""
        if not (self.role is shown.role is Role.REPLICA):
            return False
        return (self.system, self.timeline) == (shown.system, shown.timeline) and self.lsn < shown.lsn

    def after(self, earlier: "Reading | None") -> "Reading":
        """This reading, with the timeline of an earlier one of the same run of a replica where that is higher.

        A standby never goes back to a lower one while it runs. Its answer does: when its receiver is down, with its
        upstream, only the control file tells, which is late after a failover. One that replays again from an earlier
        position has crashed, and is believed.
        """
        if (
            earlier is None
            or self.role is not Role.REPLICA
            or self.server is None
            or self.server != earlier.server
            or self.lsn < earlier.lsn
            or self.timeline >= earlier.timeline
        ):
            return self
        return replace(self, timeline=earlier.timeline)

    def stuck_since(self, earlier: "Reading | None") -> bool:
        """Whether this primary has log that it has not flushed, and has flushed nothing since `earlier`."""
        return earlier is not None and earlier.flushed == self.flushed and 0 < self.flushed < self.lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node as last read. `reading` is None while it is unreachable; `cause` then says why."""

    name: str
    weight: float = 1.0
    reading: Reading | None = None
    cause: Cause | None = None
    drained: bool = False
    standing: Standing = Standing.UNREACHABLE
    fresh_at: float = -inf

    @property
    def error(self) -> str | None:
        """The class name of the last failure, for health and logs; None while the node answers."""
        return self.cause.error if self.cause is not None else None

    def staleness(self, now: float) -> float:
        """Seconds by which this replica may be behind the primary; infinite when that cannot be bounded."""
        return max(0.0, now - self.fresh_at)

    def shown_staleness(self, now: float) -> float | None:
        """The staleness as health, metrics and explanations show it: 0 for the primary, None where it has no bound."""
        if self.standing is Standing.PRIMARY:
            return 0.0
        staleness = self.staleness(now)
        return staleness if isfinite(staleness) else None


def second_names(nodes: Iterable[Node]) -> frozenset[str]:
    """The nodes that lead to a server which a node configured before them leads to already."""
    servers = set[tuple[int, int, int]]()
    names = set[str]()
    for node in nodes:
        server = node.reading.server if node.reading is not None else None
        if server in servers:
            names.add(node.name)
        elif server is not None:
            servers.add(server)
    return frozenset(names)
