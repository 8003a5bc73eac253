"""The routing of SQLAlchemy Core's connection: where its statements go, and the blocks that keep it there."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy.engine import Transaction
from sqlalchemy.ext.asyncio import AsyncTransaction

from lagwise._pools.connection import PooledConnection
from lagwise._sessions.connection import ConnectionRouting
from lagwise._sessions.lease import Lease


class CoreRouting(ConnectionRouting):
    """Hands its connections to an AsyncConnection."""

    _blocks: Sequence[Transaction] = ()

    def __init__(self, lease: Lease, given: Callable[[PooledConnection], None]) -> None:
        super().__init__(lease)
        self._given = given

    @property
    def bound(self) -> bool:
        """Whether a transaction block of the caller's is open, or the caller holds the connection itself."""
        if self._blocks:
            self._notice_ends()
        lease = self.lease
        return lease.held or lease.transactional

    def confirm_current(self) -> bool:
        """As `ConnectionRouting.confirm_current`, with the blocks that are open now."""
        self._notice_ends()
        return super().confirm_current()

    def _notice_ends(self) -> None:
        open_now = [block for block in self._blocks if block.is_active]
        if self._blocks and not open_now:
            self.lease.end_transaction()
        self._blocks = open_now

    @property
    def snapshot_taken(self) -> bool:
        """Whether something was read in the transaction of the moment; the caller may have ended an earlier one."""
        connection = self.lease.connection
        return self.taken and connection is not None and connection.in_transaction()

    async def settle_in(self, connection: PooledConnection) -> None:
        """Give the connection to the AsyncConnection."""
        self.taken = False
        self._given(connection)

    @property
    def lost(self) -> bool:
        """Whether the connection of the moment was lost, and the caller has rolled back since."""
        connection = self.lease.connection
        return connection is not None and connection.invalidated and not connection.in_transaction()

    async def begin(self, start: Callable[[], Awaitable[Any]]) -> None:
        """Begin a block of the caller's where its client's writes are; until it ends this connection stays there."""
        await self.confirm()
        if not self.connection.in_transaction():
            self.taken = False
        self.lease.ask_for_transaction()
        block: AsyncTransaction = await start()
        assert block.sync_transaction is not None
        self._blocks = [*self._blocks, block.sync_transaction]
