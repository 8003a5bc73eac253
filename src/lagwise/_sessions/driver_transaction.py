"""The transaction of the driver's own connection, and what its failures mean to the caller and to the node."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon, driver_of
from lagwise._pools.joined_connections import JoinedWriting
from lagwise._pools.limiting import over_limit, stopped
from lagwise._pools.writing import WritingConnection
from lagwise._sessions.connection import ConnectionRouting

T = TypeVar("T")


class DriverTransaction(ConnectionRouting):
    """Begins and commits the driver's transactions, which SQLAlchemy does not know of."""

    transaction: Any = None
    """The transaction of the routing itself, or None: the caller's transactions are savepoints in it."""
    spoilt = False
    """Whether the driver was changed in ways that cannot be undone: codecs, listeners."""
    blocks = 0
    """How many transactions of the caller's are open."""

    def enter_block(self) -> None:
        """The caller has begun a transaction."""
        self.blocks += 1

    def leave_block(self) -> None:
        """The caller ends a transaction."""
        self.blocks -= 1

    def left_open(self, connection: PooledConnection) -> bool:
        """Whether the caller has begun a transaction and not ended it."""
        return self.blocks > 0 if connection.shared else in_transaction(connection)

    async def begin_transaction(self, connection: PooledConnection, *, isolation: str | None, readonly: bool) -> None:
        """Begin a transaction of the routing's own."""
        if connection.shared:  # a savepoint, which cannot have a level of its own
            isolation = None
        transaction = driver_of(connection).transaction(isolation=isolation, readonly=readonly)
        await self.translating_errors(transaction.start, connection)
        self.transaction = transaction

    async def commit(self) -> None:
        """COMMIT, and note the outcome for the client: the position, refused, or in doubt."""
        connection = self.lease.connection
        if connection is None:
            return  # nothing was run
        assert isinstance(connection, WritingConnection)
        if isinstance(connection, JoinedWriting):
            await self.translating_errors(connection.check_deferred, connection)
        asked = connection.send_commit()
        transaction, self.transaction = self.transaction, None
        try:
            await self.translating_errors(transaction.commit, connection)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                abandon(connection)  # its state is unknown
            connection.commit_failed(error.__cause__ or error)
            raise
        finally:
            connection.hear_place(asked)
        commit = self.lease.commit
        if commit is not None and not commit.placed():
            await commit.settle()

    async def translating_errors(self, call: Callable[[], Awaitable[T]], connection: PooledConnection) -> T:
        """Await `call()`; report its failure to the node, and name it to the caller in lagwise's words."""
        connection.awaited = True
        try:
            return await call()
        except Exception as error:
            if (late := over_limit(error, connection, self.lease.node)) is not None:
                if not await stopped(connection):
                    self.spoilt = True
                raise late from error
            engine = self.lease.engine
            assert engine is not None
            if engine.report_failure(error, connection):
                self.spoilt = True
            if (translated := engine.translated(error, connection)) is not None:
                raise translated from error
            raise
        except BaseException:
            # A statement cut off between its Parse and its Execute message leaves the server in a transaction that
            # the driver does not know of.
            self.spoilt = True
            raise
        finally:
            connection.awaited = False
            self._look_for_commit(connection)

    def _look_for_commit(self, connection: PooledConnection) -> None:
        """Put the client in doubt when the caller has ended the transaction by hand: that may have been a COMMIT."""
        if not isinstance(connection, WritingConnection) or self.transaction is None:
            return
        if not driver_of(connection).is_closed() and not in_transaction(connection):
            connection.committed_by_text = True
            connection.announce()


def in_transaction(connection: PooledConnection) -> bool:
    """Whether the driver's connection is in a transaction, also one that BEGIN in SQL text has begun."""
    driver = driver_of(connection)
    return not driver.is_closed() and driver.is_in_transaction()  # a closed one raises
