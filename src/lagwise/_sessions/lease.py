"""A lease: one session's stay at a node, chosen when the session opens and given up when the node fails it."""

from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from lagwise._client.answer import Answer
from lagwise._client.causality import Causality
from lagwise._decide.events import Retried
from lagwise._decide.failure import Failure
from lagwise._decide.retry import FIRST, Attempts, LostTwice, after_failure
from lagwise._decide.route import Reason, Route
from lagwise._nodes.intent import Intent
from lagwise._nodes.ledger import Ledger
from lagwise._nodes.nodes import Nodes
from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon, judge
from lagwise._pools.engine import RoutedEngine
from lagwise._pools.writing import WritingConnection
from lagwise._sessions.asking import left_behind, lost_twice
from lagwise._sessions.commits import SessionCommit
from lagwise._sessions.stay import Stay

ROUTE = "lagwise.route"


class Lease(Stay):
    """One session's claim to a node. Only its own methods change it."""

    changes = 0
    """The count of what the client has seen, as of when the node was chosen."""
    commit: SessionCommit | None = None
    """The commit of the transaction under way, when the client carries a token."""
    attempts: Attempts = FIRST
    answer: Answer | None = None
    """What is false if a write session's COMMIT is refused: an answer not prepared yet when the session was opened."""

    def __init__(
        self, nodes: Nodes, ledger: Ledger, intent: Intent, seen: Causality | None, info: dict[Any, Any]
    ) -> None:
        self.nodes = nodes
        self.intent = intent
        self.seen = seen
        self._ledger = ledger
        self._info = info
        # Each read asks for these several times, and Python finds what an object has of its own five times as fast.
        self.route = self.engine = self.connection = None
        self.engaged = self.held = self.transactional = False

    @property
    def node(self) -> str:
        """The name of the chosen node; empty before there is one."""
        return (self.route.node if self.route is not None else None) or ""

    def __repr__(self) -> str:
        come = "engaged" if self.engaged else "new" if self.route is None else "placed"
        where = str(self.route) if self.route is not None else "nowhere yet"
        return f"<Lease {'write' if self.intent.write else 'read'} {come} {where}>"

    def decide(self, answer: Answer, session: Session) -> None:
        """This answer is true if the session commits, and waits for what the session has not sent yet."""
        if self.intent.sticky and not answer.prepared:
            self.answer = answer
            answer.wait_for(session)

    async def place(self) -> RoutedEngine:
        """Choose the node, unless there is one. Raises `NoPrimary` and `NoReplica`."""
        if self.engine is not None:
            return self.engine
        seen = self.seen
        if seen is not None:
            self.changes = seen.changes  # before the choice, which may wait meanwhile
        chosen = self.nodes.choose_at_once(self.intent, seen) if self.attempts is FIRST else None
        if chosen is None:
            chosen = await self._choose()
        pools = self.nodes.pools[chosen.node]  # type: ignore[index]
        self.route = chosen
        self.engine = engine = pools.writes if self.intent.write else pools.reads
        self._info[ROUTE] = chosen
        if seen is not None:
            seen.routes.append(chosen)
        return engine

    async def _choose(self) -> Route:
        """Choose among the nodes that have not failed, and wait where a better View may come."""
        attempts = self.attempts
        intent = replace(self.intent, strong=Reason.STRONG) if attempts.on_primary else self.intent
        return await self.nodes.choose(intent, self.seen, avoid=attempts.failed, holder=self)

    @property
    def may_be_overtaken(self) -> bool:
        """Whether the client may have written since this stay began: a cheap check before each statement."""
        return self.seen is not None and self.seen.changes != self.changes

    def confirm_current(self, *, snapshot_taken: bool, pinned: bool = False) -> bool:
        """Stay where the client's writes are, and a snapshot; False where the node lacks one, and the session may move.

        Args:
            snapshot_taken: whether something was read in the transaction of the moment.
            pinned: whether the caller holds something there that the lease does not know of.

        Raises:
            NoReplica: the node lacks a write of the client, and the session holds on to its connection there.
        """
        seen, chosen = self.seen, self.route
        if self.intent.write or seen is None or chosen is None or seen.changes == self.changes:
            return True
        if self.intent.snapshot and snapshot_taken:
            return True
        if self.nodes.covers(chosen, self.intent, seen):
            self.changes = seen.changes
            return True
        if pinned or self.pinned:
            raise left_behind(self.node)
        return False

    def take(self, connection: PooledConnection) -> None:
        """Use this connection; begin what the application asked for."""
        self.connection = connection
        if self.intent.timeout is not None:
            connection.restrict(self.intent.timeout)
        if isinstance(connection, WritingConnection):
            if self.seen is not None and self.intent.sticky:
                if self.commit is not None:
                    self.commit.close()
                self.commit = SessionCommit(self._ledger, self.node, self.seen, connection)
                if self.answer is not None:
                    self.commit.decides(self.answer)
        elif self.intent.snapshot:
            connection.ask_for_transaction("REPEATABLE READ")
        elif self.transactional:
            connection.ask_for_transaction()

    def ask_for_transaction(self) -> None:
        """The application needs a transaction on its node: begin one now, or with the next connection."""
        self.transactional = True
        if self.connection is not None:
            self.connection.ask_for_transaction()

    @property
    def may_rest(self) -> bool:
        """Whether the connection can go back to its pool between two statements."""
        connection = self.connection
        if connection is None or connection.touched or connection.transaction_asked or self.held or self.transactional:
            return False
        # In-memory SQLite has one connection for all: to give it back rolls back what a write session has begun.
        return not self.intent.snapshot and connection.engine.fenced

    def put_down(self) -> None:
        """The connection went back to its pool."""
        self.connection, self.held = None, False

    def note_read(self) -> None:
        """Note that something is returned to the caller from here on."""
        self.engaged = True

    def leave_failed_node(self, error: Exception) -> bool:
        """Decide whether a failed read runs again; then leave the node, or the connection, it failed on.

        Raises:
            NoPrimary: the read failed twice on one node, and no other node may serve it.
        """
        chosen, connection = self.route, self.connection
        if chosen is None or self.intent.write:
            return False
        failure = judge(error, on_replica=chosen.on_replica)
        try:
            following = after_failure(
                self.attempts,
                self.node,
                failure,
                sent=connection is not None,
                engaged=self.engaged,
                fall_back=self.nodes.policy.fall_back,
                still_answers=self.nodes.answers,
            )
        except LostTwice:
            raise lost_twice(self.node, error) from error
        if following is None:
            return False
        if connection is not None and failure in {Failure.LOST, Failure.TIMEOUT}:
            abandon(connection)
        self.attempts = following
        if (tell := self.nodes.watchers.told) is not None:
            tell(Retried(node=self.node, failure=failure))
        self.move()
        return True

    def drop_if_lost(self, error: Exception) -> bool:
        """Drop the connection if this error shows that it is lost; answers whether it is."""
        lost = judge(error, on_replica=self.route is not None and self.route.on_replica) is Failure.LOST
        if lost and self.connection is not None:
            abandon(self.connection)
        return lost

    @property
    def remembers(self) -> bool:
        """Whether the position of this read must be asked for, so that later reads are not older."""
        return self.seen is not None and not self.intent.write and self._ledger.remembers_reads

    @property
    def owes(self) -> bool:
        """Whether it must be asked for at the end: of a connection that was held, or of a write without a COMMIT."""
        return self.held and self.remembers if self.commit is None else self.commit.owes

    async def remember(self) -> None:
        """Remember the position that the client may have seen by now."""
        if self.seen is not None and self.route is not None:
            await (self._ledger.has_read(self.node, self.seen) if self.commit is None else self.commit.remember())

    @property
    def ends_silently(self) -> bool:
        """Whether ending now sends nothing, so that no cancellation can interrupt it."""
        connection, engine = self.connection, self.engine
        if connection is None or engine is None:
            return True
        return not self.intent.write and engine.gives_back_silently and connection.untouched

    def end(self) -> None:
        """The session was closed: its next use chooses anew."""
        self.route = self.engine = self.connection = None
        self.attempts = FIRST
        self.engaged = self.held = self.transactional = False
        if self.nodes.policy.fall_back_limit is not None:
            self.nodes.release(self)
        if self.commit is not None:
            (self.commit.close if self.commit.covered else self.commit.give_up)()
            self.commit = None
