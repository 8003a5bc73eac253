"""The routing of SQLAlchemy Core's connection: where its statements go, and the blocks that keep it there."""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.engine import Transaction
from sqlalchemy.ext.asyncio import AsyncTransaction

from lagwise._pools.connection import PooledConnection
from lagwise._sessions.connection import ConnectionRouting, to_the_end
from lagwise._sessions.lease import Lease


class CoreRouting(ConnectionRouting):
    """Hands its connections to an AsyncConnection."""

    def __init__(self, lease: Lease, given: Callable[[PooledConnection], None]) -> None:
        super().__init__(lease)
        self._given = given
        self._blocks: list[Transaction] = []
        self._taken = False

    @property
    def bound(self) -> bool:
        """Whether a transaction block of the caller's is open, or the caller holds the connection itself."""
        self._notice_ends()
        return super().bound

    def confirm_current(self) -> bool:
        """As `ConnectionRouting.confirm_current`, with the blocks that are open now."""
        self._notice_ends()
        return super().confirm_current()

    def _notice_ends(self) -> None:
        if self._blocks:
            self._blocks = [block for block in self._blocks if block.is_active]
            if not self._blocks:
                self.lease.end_transaction()

    @property
    def snapshot_taken(self) -> bool:
        """Whether something was read in the transaction of the moment; the caller may have ended an earlier one."""
        connection = self.lease.connection
        return self._taken and connection is not None and connection.in_transaction()

    async def settle_in(self, connection: PooledConnection) -> None:
        """Give the connection to the AsyncConnection."""
        self._taken = False
        self._given(connection)

    async def note_read(self) -> None:
        """As `ConnectionRouting.note_read`; also notes a read in this transaction."""
        self._taken = True
        await super().note_read()

    async def confirm(self) -> None:
        """As `ConnectionRouting.confirm`; after a loss that the caller has rolled back, choose a node again."""
        connection = self.lease.connection
        if connection is not None and connection.invalidated and not connection.in_transaction():
            await to_the_end(self._depart())
            self.lease.move()
        await super().confirm()
        if self.lease.intent.snapshot:
            self.connection.engage("REPEATABLE READ")  # the caller may have ended the transaction before

    async def begin(self, start: Callable[[], Awaitable[Any]]) -> None:
        """Begin a block of the caller's where its client's writes are; until it ends this connection stays there."""
        await self.confirm()
        if not self.connection.in_transaction():
            self._taken = False
        self.lease.ask_for_transaction()
        block: AsyncTransaction = await start()
        assert block.sync_transaction is not None
        self._blocks.append(block.sync_transaction)
