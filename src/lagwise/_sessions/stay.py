"""A stay: where a session is, and what it holds there."""

from lagwise._decide.route import Route
from lagwise._nodes.intent import Intent
from lagwise._pools.connection import PooledConnection
from lagwise._pools.engine import RoutedEngine


class Stay:
    """One session's stay at a node. Only its own methods change it."""

    intent: Intent
    route: Route | None
    """Where the session is, and why; None while no node is chosen."""
    engine: RoutedEngine | None
    """The engine there."""
    connection: PooledConnection | None
    """The connection in use at this moment; a plain read gives it back after each statement."""
    engaged: bool
    """Whether something was handed out: the session stays, because the caller may have acted on it."""
    held: bool
    """Whether the application holds on to the connection itself."""
    transactional: bool
    """Whether the application asked for a transaction: the next connection begins one."""

    @property
    def node(self) -> str:
        """The name of the chosen node; empty before there is one."""
        return (self.route.node if self.route is not None else None) or ""

    @property
    def pinned(self) -> bool:
        """Whether the session has something in its connection that no other one has."""
        if self.held or self.transactional:
            return True
        connection = self.connection
        # The transaction of a snapshot that is not taken yet holds nothing.
        return connection is not None and not (
            connection.untouched or (self.intent.snapshot and not connection.touched)
        )

    @property
    def may_rest(self) -> bool:
        """Whether the connection can go back to its pool between two statements."""
        connection = self.connection
        if connection is None or connection.touched or connection.transaction_asked or self.held or self.transactional:
            return False
        # In-memory SQLite has one connection for all: to give it back rolls back what a write session has begun.
        return not self.intent.snapshot and connection.engine.fenced

    def move(self) -> None:
        """Leave the node; the next statement chooses a node again."""
        self.route = self.engine = self.connection = None

    def hold(self) -> None:
        """The application holds on to the connection itself."""
        self.held = True

    def end_transaction(self) -> None:
        """The transaction that the application asked for has ended."""
        self.transactional = False

    def put_down(self) -> None:
        """The connection went back to its pool."""
        self.connection, self.held = None, False

    def note_read(self) -> None:
        """Note that something is returned to the caller from here on."""
        self.engaged = True
