"""One session's way to its node: chosen when it opens, tried elsewhere when it fails, told of its commits."""

import asyncio
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._client.causality import Causality, Commit
from lagwise._decide.failure import Failure
from lagwise._decide.route import Route
from lagwise._nodes.intent import Intent
from lagwise._pools.connection import PooledConnection
from lagwise._pools.counters import checked_out
from lagwise._pools.driver import abandon, judge
from lagwise._pools.engine import RoutedEngine
from lagwise._pools.pools import Pools
from lagwise.errors import NoPrimary, NoReplica

ROUTE = "lagwise.route"


class Opener(Protocol):
    """What sessions need of the Router."""

    @property
    def monotonic(self) -> bool:
        """Whether a client's reads must never go back in time either."""
        ...

    def require_open(self) -> None:
        """Raise `NotOpen` unless the Router runs."""

    def default_engine(self) -> AsyncEngine:
        """The primary's engine, for whoever asks a session for its dialect."""
        ...

    def choose_at_once(self, opening: "Opening") -> tuple[Route, Pools] | None:
        """Where to go, unless there is something to wait for."""
        ...

    async def choose(self, opening: "Opening") -> tuple[Route, Pools]:
        """Where to go, and wait for it."""
        ...

    def covers(self, opening: "Opening", node: str) -> bool:
        """Whether this replica still has everything that the session's client has seen."""
        ...

    def answers(self, node: str) -> bool:
        """Whether this node has answered its latest probe, and lost nobody since."""
        ...

    def release(self, opening: "Opening") -> None:
        """The session is closed."""

    async def has_read(self, opening: "Opening", node: str) -> None:
        """The session has read from this node."""

    def committing(self, node: str, seen: Causality) -> Commit | None:
        """A COMMIT is about to be sent to this node."""
        ...

    async def committed(self, node: str, commit: Commit, driver: Any) -> None:
        """It succeeded, on this connection of the driver's: find out where."""


async def give_way() -> None:
    """Let those who are ready go first. For moments at which a cancellation costs nothing.

    Sessions that take the same step one after the other find its code in the processor's cache. Where each goes
    through all of its steps at once, nobody does: measured with 16 at a time, that costs a read a fifth of its speed.
    """
    await asyncio.sleep(0)


class Opening:
    """The state of one session's routing."""

    pools: Pools | None = None
    engine: RoutedEngine | None = None
    connection: PooledConnection | None = None
    started: bool = False
    remembers: bool = False
    """Whether what is read here must be asked for afterwards, so that later reads are not older."""
    fell_back: bool = False
    """Whether it takes one of the places on the primary that reads may fall back to."""
    avoid: frozenset[str] = frozenset()
    timed_out: str = ""
    """The node on which the driver's time-out ended the statement."""
    commit: Commit | None = None
    opened_on: int = 0
    """`seen.changes` when the node was chosen."""

    def __init__(self, opener: Opener, intent: Intent, seen: Causality | None, info: dict[Any, Any]) -> None:
        self.opener = opener
        self.intent = intent
        self.seen = seen
        self.info = info

    async def open(self) -> RoutedEngine:
        """Choose the node, once. Raises `NoPrimary` and `NoReplica`."""
        if self.engine is None:
            route, self.pools = self.opener.choose_at_once(self) or await self.opener.choose(self)
            self.info[ROUTE] = route
            if self.seen is not None:
                self.opened_on = self.seen.changes
                self.remembers = not self.intent.write and self.opener.monotonic
                self.seen.routes.append(route)
            self.engine = self._engine(self.pools, route.on_replica)
        return self.engine

    @property
    def node(self) -> str:
        """The name of the chosen node; empty before there is one."""
        return self.pools.name if self.pools is not None else ""

    def silent(self, *, in_transaction: bool) -> bool:
        """Whether to close the session now sends nothing to anyone, so that no cancellation can come between."""
        if self.engine is None or self.pools is None or self.remembers:
            return self.engine is None
        if not in_transaction or self.connection is None:
            return True
        return self.engine is self.pools.replica_reads and self.engine.gives_back_silently and self.connection.untouched

    @property
    def crowded(self) -> bool:
        """Whether others use the same pool at this moment: then `give_way` at the next occasion."""
        return self.engine is not None and checked_out(self.engine.pool) > (self.connection is not None)

    def _engine(self, pools: Pools, on_replica: bool) -> RoutedEngine:
        if self.intent.write:
            return pools.writes
        if self.intent.snapshot:
            return pools.replica_snapshots if on_replica else pools.primary_snapshots
        return pools.replica_reads if on_replica else pools.primary_reads

    @property
    def may_be_overtaken(self) -> bool:
        """Whether the client has done anything since this session opened: asked before everything else, so cheap."""
        return self.seen is not None and self.seen.changes != self.opened_on

    def overtaken(self, *, in_transaction: bool) -> bool:
        """Whether the client has written since this session opened, and what it reads from lacks the write.

        A snapshot that was asked for, and has been taken, stays as of when it was taken.
        """
        seen, engine = self.seen, self.engine
        if seen is None or engine is None or self.pools is None or seen.changes == self.opened_on:
            return False
        taken = in_transaction and self.connection is not None
        if taken and self.intent.snapshot:
            return False
        streaming = taken and engine.on_replica and engine is self.pools.replica_snapshots
        if not streaming and self.opener.covers(self, self.node):
            self.opened_on = seen.changes
            return False
        return True

    def left_behind(self) -> NoReplica:
        """The error for one who was overtaken and cannot move."""
        return NoReplica(
            "this read session began its transaction before the client's own write, which its node does "
            "not show. Read what was just written in a new session, or with db.read(primary=True)."
        )

    def move(self) -> None:
        """Go on elsewhere, further ahead: without a transaction each statement sees its own moment anyway."""
        self.engine = self.connection = None

    def stream(self) -> None:
        """The first statement wants a server-side cursor, which lives in a transaction."""
        if self.pools is not None and self.engine is not None and self.engine.on_replica:
            self.engine = self.pools.replica_snapshots

    def elsewhere(self, error: Exception) -> bool:
        """Whether the failed read may be tried again; forgets the node, or the connection, it failed on.

        Raises:
            NoPrimary: it failed twice on the primary, where reads end up.
        """
        engine, connection = self.engine, self.connection
        failure = judge(error, on_replica=engine is not None and engine.on_replica)
        if engine is None or not failure.elsewhere:
            return False
        if failure is Failure.TIMEOUT and connection is not None:
            # Twice is the statement's own slowness, unless the first node is silent for everybody.
            if self.timed_out and self.opener.answers(self.timed_out):
                return False
            self.timed_out = self.node
        name = self.node
        if name in self.avoid:
            raise NoPrimary(
                f"the connection to {name} was lost twice in one read ({type(error).__name__}), "
                "and no other node may serve it. Retry."
            ) from error
        if connection is not None and failure is not Failure.CONFLICT:
            abandon(connection)
        self.avoid |= {name}
        self.engine = self.connection = None
        return True

    def lost(self, error: Exception) -> bool:
        """Whether this error means that the connection is gone; it is dropped then."""
        if judge(error, on_replica=self.engine is not None and self.engine.on_replica) is not Failure.LOST:
            return False
        if self.connection is not None:
            abandon(self.connection)
        return True

    def in_doubt(self) -> Commit | None:
        """COMMIT is about to be sent."""
        if self.seen is not None and self.engine is not None:
            self.commit = self.opener.committing(self.node, self.seen)
        return self.commit

    def reopen(self) -> None:
        """The session was closed: its next use chooses anew."""
        self.engine = self.connection = None
        self.started = False
        if self.avoid:
            self.avoid, self.timed_out = frozenset(), ""
        if self.fell_back:
            self.fell_back = False
            self.opener.release(self)
        if self.commit is not None:
            self.commit.unplaced()
            self.commit = None
