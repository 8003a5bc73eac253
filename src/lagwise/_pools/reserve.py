"""One connection beyond a pool's size, for a request that holds one already: so some request always ends."""

from collections.abc import Callable
from weakref import ref

from sqlalchemy.pool import Pool

from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import is_closed


class Reserve:
    """The reserve of one pool: it has a pool of its own, of which one connection at a time is in use."""

    def __init__(self) -> None:
        self.pool: Pool | None = None
        self._last: Callable[[], PooledConnection | None] = lambda: None
        self._promised = False

    def free(self) -> bool:
        """Whether the connection can be taken."""
        last = self._last()
        return not self._promised and (last is None or last.closed)

    def promise(self) -> None:
        """Keep the connection for the caller, who takes it at once."""
        self._promised = True

    def take(self, model: Pool, connect: Callable[[Pool], PooledConnection]) -> PooledConnection:
        """Take the connection, from a pool that is made like `model`."""
        try:
            if self.pool is None:
                self.pool = model.recreate()
            connection = connect(self.pool)
            if is_closed(connection):
                connection.invalidate()
                connection.close()
                connection = connect(self.pool)
            self._last = ref(connection)
            return connection
        finally:
            self._promised = False
