"""The use of one node, which the monitor may cut off, and what the monitor is told of it."""

from collections.abc import Callable
from dataclasses import dataclass

from lagwise._decide.catalog import UNREAD, Catalog
from lagwise._pools.pooler import Pooler
from lagwise._pools.pooling import Pooling


@dataclass(frozen=True, slots=True)
class Readers:
    """Sessions that read from one node, by one engine.

    Attributes:
        abort: cuts off those that wait for an answer.
        turn_away: cuts off those that wait for a connection.
    """

    abort: Callable[[], None]
    turn_away: Callable[[], None]


class Traffic:
    """The use of one node, and what the monitor is told of it."""

    connect_timeout = 5.0
    """How long a new connection may take, seconds; then it is given up, and a read goes to another node."""

    def __init__(self, name: str, pooling: Pooling) -> None:
        self.name = name
        self.pooling = pooling
        """What its connections keep between two transactions."""
        self.pooler = Pooler()
        """What is known of a pooler before the node."""
        self.lost: Callable[[str], None] = lambda _error: None
        """Called when a connection has broken: the node is struck from the view until it is probed."""
        self.suspect: Callable[[str], None] = lambda _error: None
        """Called when something may be wrong: the node is probed at once, over a new connection."""
        self.in_recovery: Callable[[], bool] = lambda: False
        """Whether the node is a replica, as last read; of one that does not answer, as it was before."""
        self.system: Callable[[], int] = lambda: 0
        """The identifier of the cluster that a new connection must lead to; 0 for any."""
        self.catalog: Catalog = UNREAD
        """What the database says of the functions, operators and types that statements name."""
        self.relearn: Callable[[], None] = lambda: None
        """Called when a statement names something that is not in the catalog: the catalog is soon read again."""
        self.readers: list[Readers] = []

    def abort(self) -> None:
        """Cut off the reads that wait for this silent node, so that they can run on another one."""
        for engine in self.readers:
            engine.abort()
            engine.turn_away()

    def turn_away(self) -> None:
        """Send a replica's reads that only wait for a connection to another node: this one has not answered."""
        if self.in_recovery():
            for engine in self.readers:
                engine.turn_away()
