"""SQLAlchemy Core without a session: a connection for reads, under the promise of a read session."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncResult, AsyncTransaction
from sqlalchemy.ext.asyncio.base import asyncstartablecontext
from sqlalchemy.ext.asyncio.exc import AsyncContextNotStarted

from lagwise._pools.connection import PooledConnection
from lagwise._pools.options import ISOLATION
from lagwise._sessions.connection import to_the_end
from lagwise._sessions.core_routing import CoreRouting
from lagwise._sessions.lease import Lease
from lagwise.errors import ReadOnly, RoutingError


class _BlockOfTheCallers(AsyncTransaction):
    """The caller's own transaction, or savepoint."""

    async def start(self, is_ctxmanager: bool = False) -> AsyncTransaction:
        """Begin."""
        connection = self.connection
        assert isinstance(connection, RoutedConnection)
        plain = super().start
        await connection._routing.begin(lambda: plain(is_ctxmanager))
        return self


class RoutedConnection(AsyncConnection):
    """An AsyncConnection on one node, read-only wherever it lands. It has no node until it is entered, or awaited.

    Its first statement runs on another node when the node fails. After `begin()` the connection stays on its node.
    """

    _options: Mapping[str, Any] = {}

    def __init__(self, engine: AsyncEngine, lease: Lease) -> None:
        super().__init__(engine)
        self._routing = CoreRouting(lease, self._take)

    def _take(self, connection: PooledConnection) -> None:
        if self._options:
            connection.execution_options(**self._options)
        super().__init__(connection.engine.for_async, connection)

    async def start(self, is_ctxmanager: bool = False) -> "RoutedConnection":
        """Choose the node. Raises what `db.read()` raises."""
        if self._routing.inside:
            raise RoutingError("this connection is open already; db.read.connect() gives a new one")
        await self._routing.enter()
        return self

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._routing.leave()

    async def close(self) -> None:
        """Give the connection back. A second call does nothing."""
        await self._routing.leave()

    @property
    def closed(self) -> bool:
        """Whether the block has ended, or not begun."""
        return not self._routing.inside

    @property
    def invalidated(self) -> bool:
        """Whether the connection of the moment was lost."""
        connection = self._routing.lease.connection
        return connection is not None and connection.invalidated

    def in_transaction(self) -> bool:
        """Whether a transaction is open; a plain read has none."""
        connection = self._routing.lease.connection
        return connection is not None and connection.in_transaction()

    def in_nested_transaction(self) -> bool:
        """Whether a savepoint is open."""
        connection = self._routing.lease.connection
        return connection is not None and connection.in_nested_transaction()

    async def commit(self) -> None:
        """As `AsyncConnection.commit`: ends the transaction, if there is one."""
        if self.in_transaction():
            await super().commit()
            await self._routing.rest()

    async def rollback(self) -> None:
        """As `AsyncConnection.rollback`: ends the transaction, if there is one."""
        if self.in_transaction():
            await super().rollback()
            await self._routing.rest()

    async def execute(self, *args: Any, **kw: Any) -> Any:
        """As `AsyncConnection.execute`, on a node that answers and has what the client wrote."""
        return await self._run(partial(super().execute, *args, **kw))

    async def exec_driver_sql(self, *args: Any, **kw: Any) -> Any:
        """As `AsyncConnection.exec_driver_sql`, likewise."""
        return await self._run(partial(super().exec_driver_sql, *args, **kw))

    @asyncstartablecontext
    async def stream(self, *args: Any, **kw: Any) -> AsyncIterator[AsyncResult[Any]]:
        """As `AsyncConnection.stream`, likewise; the cursor lives in a READ ONLY transaction."""
        plain = super().stream

        async def streamed() -> AsyncResult[Any]:
            self._routing.connection.ask_for_transaction()  # so the connection stays until its transaction ends
            begun: AsyncResult[Any] = await plain(*args, **kw)
            return begun

        self._require_started()
        result = await self._routing.run(streamed)
        try:
            yield result
        except GeneratorExit:
            pass  # awaited, not entered: the caller closes it
        else:
            await to_the_end(result.close())

    async def run_sync(self, *args: Any, **kw: Any) -> Any:
        """As `AsyncConnection.run_sync`, on a node that has what the client wrote. It never runs twice."""
        return await self._hold(partial(super().run_sync, *args, **kw), unseen=True)

    async def get_raw_connection(self) -> Any:
        """As `AsyncConnection.get_raw_connection`; from here on the block keeps this connection."""
        return await self._hold(super().get_raw_connection, unseen=True)

    async def get_isolation_level(self) -> Any:
        """As `AsyncConnection.get_isolation_level`; from here on the block keeps this connection."""
        return await self._hold(super().get_isolation_level)

    def begin(self) -> AsyncTransaction:
        """Begin a READ ONLY transaction; until it ends this connection stays where it is."""
        self._require_started()
        return _BlockOfTheCallers(self)

    def begin_nested(self) -> AsyncTransaction:
        """Begin a savepoint; likewise."""
        self._require_started()
        return _BlockOfTheCallers(self, nested=True)

    async def execution_options(self, **opt: Any) -> AsyncConnection:
        """As `AsyncConnection.execution_options`; the options also hold for a connection that replaces a lost one.

        Raises:
            ReadOnly: an option sets the isolation level or the access mode.
        """
        if fixed := sorted(opt.keys() & ISOLATION):
            raise ReadOnly(
                f"{', '.join(fixed)} cannot be set here: a read connection has READ ONLY transactions; "
                "for one snapshot use db.read.connect(snapshot=True)"
            )
        self._require_started()
        connection = self._routing.lease.connection
        if connection is not None:
            connection.execution_options(**opt)
        self._options = {**self._options, **opt}
        return self

    def _require_started(self) -> None:
        if self._routing.inside:
            return
        if self._routing.left:
            raise ResourceClosedError(
                "this connection is closed: its block has ended, in FastAPI before the response starts. A stream or a "
                "background task opens its own: `async with db.read.connect() as connection`."
            )
        raise AsyncContextNotStarted(
            "this connection has not begun: use it inside `async with db.read.connect() as connection:`, or await it"
        )

    async def _hold(self, call: Callable[[], Awaitable[Any]], *, unseen: bool = False) -> Any:
        self._require_started()
        await self._routing.confirm()
        self._routing.lease.hold()
        if unseen:
            self._routing.connection.touched = True  # by the driver's own means anything can be set
        return await self._routing.run_unretried(call)

    async def _run(self, statement: Callable[[], Awaitable[Any]]) -> Any:
        routing = self._routing
        if not routing.inside:
            self._require_started()
        result = await routing.run(statement)
        await routing.rest()
        return result
