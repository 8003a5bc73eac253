"""SQLAlchemy Core without a session: a connection for reads, under the promise of a read session."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from lagwise.errors import RoutingError
from lagwise.opening import Opening
from lagwise.visit import Visit


class _CoreVisit(Visit):
    """Gives its connections to an AsyncConnection."""

    def __init__(self, opening: Opening, given: Callable[[Connection], None]) -> None:
        super().__init__(opening)
        self._given = given

    async def settle_in(self, connection: Connection) -> None:
        self._given(connection)


class RoutedConnection(AsyncConnection):
    """An AsyncConnection on one node, read-only wherever it lands. It has no node until it is entered, or awaited.

    Its first statement runs elsewhere when its node fails. With `begin()` it stays: what the block has seen holds.
    """

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening.opener.default_engine())
        self._visit = _CoreVisit(opening, self._take)

    def _take(self, connection: Connection) -> None:
        engine = self._visit.opening.engine
        assert engine is not None
        super().__init__(engine.for_async, connection)

    async def start(self, is_ctxmanager: bool = False) -> "RoutedConnection":
        """Choose the node and connect. Raises what `db.read()` raises."""
        if self.sync_connection is not None:
            raise RoutingError("this connection is open already; db.read.connect() gives a new one")
        await self._visit.arrive()
        return self

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connection back. It can be called again, and does nothing then."""
        await self._visit.leave()

    async def execute(self, *args: Any, **kw: Any) -> Any:
        """As `AsyncConnection.execute`, where it succeeds and has what the client wrote."""
        return await self._run(super().execute, *args, **kw)

    async def exec_driver_sql(self, *args: Any, **kw: Any) -> Any:
        """As `AsyncConnection.exec_driver_sql`, likewise."""
        return await self._run(super().exec_driver_sql, *args, **kw)

    def begin(self) -> AsyncTransaction:
        """Begin a transaction; from here on this connection stays where it is."""
        self._visit.bound = True
        return super().begin()

    async def _run(self, statement: Callable[..., Awaitable[Any]], *args: Any, **kw: Any) -> Any:
        return await self._visit.run(lambda: statement(*args, **kw))
