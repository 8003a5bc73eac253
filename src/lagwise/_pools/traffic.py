"""The use of one node, which the monitor may cut off, and what the monitor is told of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lagwise._decide.catalog import UNREAD, Catalog
from lagwise._pools.driver import abandon, driver_of
from lagwise._pools.pooler import Pooler
from lagwise._pools.pooling import Pooling


class Expected(NamedTuple):
    """What a new connection must lead to: a cluster, and a replica that has replayed so much. 0 stands for any."""

    system: int
    replayed: int


ANY_SERVER = Expected(0, 0)


class Users:
    """The sessions that use a node by one engine, a RoutedEngine."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.read: bool = engine.reads

    def abort(self) -> None:
        """Cut off those that wait for an answer."""
        for connection in self._in_use():
            if self.read:
                abandon(connection)
            else:
                connection.cut_off()

    def turn_away(self) -> None:
        """Cut off those that wait for a connection."""
        self.engine.attempts.abort()
        self.engine.turns.turn_away()

    def outdate(self) -> None:
        """Let no session get a connection that there is now, and close those in use when their sessions end."""
        using = self._spoil()
        if self.engine.setup is not None:
            self.engine.setup.outdate([driver_of(each) for each in using if not each.invalidated])

    def close(self) -> None:
        """End the waits for a connection, and close those in use when their sessions end: their pool is disposed of."""
        self.engine.close()
        self.turn_away()
        self._spoil()

    def _spoil(self) -> list[Any]:
        using = self._in_use()
        for connection in using:
            connection.touched = connection.spoilt = True
        return using

    def _in_use(self) -> list[Any]:
        return [each for each in self.engine.counters.in_use() if each.engine is self.engine]


class Traffic:
    """The use of one node, and what the monitor is told of it."""

    def __init__(self, name: str, pooling: Pooling) -> None:
        self.name = name
        self.pooling = pooling
        """What its connections keep between two transactions."""
        self.pooler = Pooler(self._outdate)
        """What is known of a pooler before the node."""
        self.catalog: Catalog = UNREAD
        """What the database says of the functions, operators and types that statements name."""
        self.users: list[Users] = []
        self.attach(
            lost=lambda _error: None,
            suspect=lambda _error: None,
            relearn=lambda: None,
            in_recovery=lambda: False,
            expected=lambda: ANY_SERVER,
            connect_timeout=5.0,
            abort_after=5.0,
        )

    def attach(
        self,
        *,
        lost: Callable[[str], None],
        suspect: Callable[[str], None],
        relearn: Callable[[], None],
        in_recovery: Callable[[], bool],
        expected: Callable[[], Expected],
        connect_timeout: float,
        abort_after: float,
    ) -> None:
        """Tell this monitor, and ask it, from here on.

        Args:
            lost: called when a connection has broken: the node is struck from the view until it is probed.
            suspect: called when something may be wrong: the node is probed at once, over a new connection.
            relearn: called when a statement names something that the catalog has not: it is soon read again.
            in_recovery: whether the node is a replica, as last read; of one that does not answer, as it was before.
            expected: what a new connection must lead to.
            connect_timeout: how long a new connection may take, seconds; then a read goes to another node.
            abort_after: how long the path of one connection may be silent, seconds; then the connection is closed.
        """
        self.lost = lost
        self.suspect = suspect
        self.relearn = relearn
        self.in_recovery = in_recovery
        self.expected = expected
        self.connect_timeout = connect_timeout
        self.abort_after = abort_after

    def learn(self, catalog: Catalog) -> None:
        """Judge statements by this catalog from here on."""
        self.catalog = catalog

    def abort(self) -> None:
        """Cut off what waits for this silent node: reads can run on another one, and writes end."""
        for users in self.users:
            users.abort()
            if users.read:
                users.turn_away()

    def turn_away(self) -> None:
        """Send a replica's reads that only wait for a connection to another node: this one has not answered."""
        if self.in_recovery():
            for users in self.users:
                if users.read:
                    users.turn_away()

    def close(self) -> None:
        """No session gets a connection any more."""
        for users in self.users:
            users.close()

    def forgotten(self, error: str) -> None:
        """Look again for a pooler that hands server processes on: the server does not know a prepared statement."""
        self.pooler.doubt()
        self.suspect(error)

    def _outdate(self) -> None:
        # What was set in these connections, and prepared, is in server processes that others have now.
        for users in self.users:
            users.outdate()
