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
    def pinned(self) -> bool:
        """Whether the session has something in its connection that no other one has."""
        if self.held or self.transactional:
            return True
        connection = self.connection
        # The transaction of a snapshot that is not taken yet holds nothing.
        return connection is not None and not (
            connection.untouched or (self.intent.snapshot and not connection.touched)
        )

    def move(self) -> None:
        """Leave the node; the next statement chooses a node again."""
        self.route = self.engine = self.connection = None

    def hold(self) -> None:
        """The application holds on to the connection itself."""
        self.held = True

    def end_transaction(self) -> None:
        """The transaction that the application asked for has ended."""
        self.transactional = False
