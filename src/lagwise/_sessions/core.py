"""SQLAlchemy Core without a session: a connection for reads, under the promise of a read session."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from sqlalchemy.engine import Connection, Transaction
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult, AsyncTransaction
from sqlalchemy.ext.asyncio.base import asyncstartablecontext

from lagwise._sessions.connection import Visit, to_the_end
from lagwise._sessions.lease import Opening
from lagwise.errors import RoutingError

# They would undo what keeps a read on the primary from writing.
_FIXED = frozenset({"isolation_level", "postgresql_readonly", "postgresql_deferrable"})


class _CoreVisit(Visit):
    """Gives its connections to an AsyncConnection."""

    def __init__(self, opening: Opening, given: Callable[[Connection], None]) -> None:
        super().__init__(opening)
        self._given = given
        self._blocks: list[Transaction] = []
        self._taken = False

    @property
    def bound(self) -> bool:
        """Whether a block of the caller's own is open."""
        self._blocks = [block for block in self._blocks if block.is_active]
        return bool(self._blocks)

    @property
    def taken(self) -> bool:
        """Whether something was read in this transaction; the caller may have ended the one before."""
        connection = self.opening.connection
        return self._taken and connection is not None and connection.in_transaction()

    async def settle_in(self, connection: Connection) -> None:
        """Hand it over."""
        self._taken = False
        self._given(connection)

    async def here(self) -> None:
        """After a loss that the caller has rolled back, go on by the same way as at first."""
        connection = self.opening.connection
        if connection is not None and connection.invalidated and not connection.in_transaction():
            await to_the_end(self._depart())
            self.opening.move()
        await super().here()

    async def stream(self) -> None:
        """The first statement wants a cursor, which lives in a transaction."""
        opening = self.opening
        if opening.started or self.bound or opening.pools is None or opening.engine is not opening.pools.replica_reads:
            return
        await to_the_end(self._depart())
        opening.stream()
        await self.arrive()

    def note_read(self) -> None:
        """Something was handed out."""
        super().note_read()
        self._taken = True

    async def begin(self, start: Callable[[], Awaitable[Any]]) -> None:
        """Begin a block of the caller's where its client's writes are; until it ends this connection stays there."""
        await self.here()
        if not self.connection.in_transaction():
            self._taken = False
        block: AsyncTransaction = await start()
        assert block.sync_transaction is not None
        self._blocks.append(block.sync_transaction)


class _Block(AsyncTransaction):
    """The caller's own transaction, or savepoint."""

    async def start(self, is_ctxmanager: bool = False) -> AsyncTransaction:
        """Begin."""
        connection = self.connection
        assert isinstance(connection, RoutedConnection)
        plain = super().start
        await connection._visit.begin(lambda: plain(is_ctxmanager))
        return self


class RoutedConnection(AsyncConnection):
    """An AsyncConnection on one node, read-only wherever it lands. It has no node until it is entered, or awaited.

    Its first statement runs elsewhere when its node fails. With `begin()` it stays: what the block has seen holds.
    """

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening.opener.default_engine())
        self._visit = _CoreVisit(opening, self._take)
        self._options: dict[str, Any] = {}

    def _take(self, connection: Connection) -> None:
        engine = self._visit.opening.engine
        assert engine is not None
        if self._options:
            connection.execution_options(**self._options)
        super().__init__(engine.for_async, connection)

    async def start(self, is_ctxmanager: bool = False) -> "RoutedConnection":
        """Choose the node and connect. Raises what `db.read()` raises."""
        if self.sync_connection is not None:
            raise RoutingError("this connection is open already; db.read.connect() gives a new one")
        await self._visit.enter()
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

    @asyncstartablecontext
    async def stream(self, *args: Any, **kw: Any) -> AsyncIterator[AsyncResult[Any]]:
        """As `AsyncConnection.stream`, likewise. Later than the first statement it needs `snapshot=True`."""
        plain = super().stream

        async def streamed() -> AsyncResult[Any]:
            await self._visit.stream()
            begun: AsyncResult[Any] = await plain(*args, **kw)
            return begun

        result = await self._visit.run(streamed)
        try:
            yield result
        except GeneratorExit:
            pass  # awaited, not entered: the caller closes it
        else:
            await to_the_end(result.close())

    async def run_sync(self, *args: Any, **kw: Any) -> Any:
        """As `AsyncConnection.run_sync`, where there is what the client wrote. It is never run twice."""
        run = super().run_sync
        return await self._visit.once(lambda: run(*args, **kw))

    def begin(self) -> AsyncTransaction:
        """Begin a transaction; until it ends this connection stays where it is."""
        assert self._proxied is not None  # raises when it was not started
        return _Block(self)

    def begin_nested(self) -> AsyncTransaction:
        """Begin a savepoint; likewise. On a replica it needs `snapshot=True`."""
        assert self._proxied is not None
        return _Block(self, nested=True)

    async def execution_options(self, **opt: Any) -> AsyncConnection:
        """As `AsyncConnection.execution_options`; they go where the connection goes.

        Raises:
            RoutingError: how its transactions are begun is the router's to say.
        """
        if fixed := sorted(_FIXED & opt.keys()):
            raise RoutingError(
                f"{', '.join(fixed)} cannot be set here: what reads has transactions that read; "
                "for one snapshot use db.read.connect(snapshot=True)"
            )
        await super().execution_options(**opt)
        self._options.update(opt)
        return self

    async def _run(self, statement: Callable[..., Awaitable[Any]], *args: Any, **kw: Any) -> Any:
        return await self._visit.run(lambda: statement(*args, **kw))
