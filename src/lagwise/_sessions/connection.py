"""Routing of a connection without a session: on a node that the client may use, replaced when its node fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from asyncpg import InterfaceError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon
from lagwise._sessions.lease import Lease
from lagwise.errors import RoutingError

T = TypeVar("T")


class ConnectionRouting:
    """Routes a connection without a session as a session routes itself."""

    inside = False
    """Whether the block has begun and not ended: only then a new connection replaces a lost one."""
    taken = False
    """Whether something was read over the connection of the moment."""
    left = False
    """Whether the block has ended."""
    _busy = False

    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    @property
    def connection(self) -> PooledConnection:
        """The connection of the moment. Raises `RoutingError` when it was lost and not replaced."""
        if self.lease.connection is None:
            raise RoutingError("this connection was lost, and its block cannot go on. Begin a new one.")
        return self.lease.connection

    @property
    def lost(self) -> bool:
        """Whether the connection of the moment was lost, and nothing keeps the caller from another one."""
        return False

    @property
    def bound(self) -> bool:
        """Whether the caller holds on to this very connection: a transaction, a cursor, a prepared statement."""
        return self.lease.held or self.lease.transactional

    @property
    def pinned(self) -> bool:
        """Whether this very connection holds something that no other one has."""
        return self.bound

    @property
    def silent(self) -> bool:
        """Whether `leave()` sends nothing, so that no cancellation can interrupt it."""
        return self.lease.ends_silently and not self.lease.owes

    async def settle_in(self, connection: PooledConnection) -> None:
        """Prepare each connection, the first one and each replacement, before its use."""
        self.taken = False

    def let_go(self) -> None:
        """End the caller's use of the connection of the moment, in which there is nothing."""

    async def settle_up(self, connection: PooledConnection) -> None:
        """Prepare each connection before it goes back to its pool, whatever is in it."""
        self.let_go()

    async def enter(self) -> None:
        """Choose a node; a connection comes with the first statement. Raises what `db.read()` raises."""
        try:
            await self.lease.place()
        except BaseException:
            self.lease.end()
            raise
        self.inside = True

    async def arrive(self) -> None:
        """Connect, on another node when that fails."""
        lease = self.lease
        while True:
            engine = lease.engine or await lease.place()
            connection: PooledConnection | None = None
            try:
                connection = await greenlet_spawn(engine.connect)
                lease.take(connection)
                await self.settle_in(connection)
            except BaseException as error:
                try:
                    again = isinstance(error, Exception) and lease.leave_failed_node(error)
                finally:  # it raises when no other node may serve
                    lease.put_down()
                    await to_the_end(_end(connection))
                if not again:
                    raise
            else:
                return

    async def confirm(self) -> None:
        """Take a connection unless there is one; leave a node that lacks what the client has written since.

        Raises:
            NoReplica: the client has written meanwhile, and holds on to a connection that does not show it.
        """
        lease = self.lease
        if not self.inside:
            return
        if self.lost or (lease.may_be_overtaken and not self.confirm_current()):
            await to_the_end(self._depart())
            lease.move()
        if lease.connection is None:
            await self.arrive()
        elif lease.intent.snapshot:
            lease.connection.ask_for_transaction("REPEATABLE READ")  # the caller may have ended the transaction before

    def confirm_current(self) -> bool:
        """Whether the connection shows what the client has written. Raises as `confirm()`."""
        return self.lease.confirm_current(snapshot_taken=self.snapshot_taken, pinned=self.pinned)

    @property
    def snapshot_taken(self) -> bool:
        """Whether something was read in the transaction of the moment: a snapshot is as of then."""
        return self.lease.connection is not None and self.lease.engaged

    async def run(self, statement: Callable[[], Awaitable[T]]) -> T:
        """Run a statement where its client's writes are; the first one where it succeeds. Raises as `confirm()`."""
        if self._busy:
            raise _under_way()
        self._busy, lease = True, self.lease
        try:
            await self.confirm()
            while True:
                try:
                    result = await statement()
                except Exception as error:
                    connection = lease.connection
                    if self.bound or not lease.leave_failed_node(error):
                        raise
                    await to_the_end(_end(connection))
                    await self.arrive()
                else:
                    self.taken = True
                    lease.note_read()
                    if lease.remembers:
                        await lease.remember()
                    return result
        finally:
            self._busy = False

    async def run_unretried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call once, where the client's writes are: it may return something before it fails."""
        if self._busy:
            raise _under_way()
        self._busy, lease = True, self.lease
        try:
            await self.confirm()
            lease.note_read()
            result = await call()
            self.taken = True
            lease.note_read()
            if lease.remembers:
                await lease.remember()
            return result
        finally:
            self._busy = False

    async def rest(self) -> None:
        """Give the connection back between two statements, when there is nothing in it."""
        lease = self.lease
        if self.bound or not lease.may_rest:
            return
        if lease.nodes.is_open and lease.ends_silently:
            connection = self.connection
            lease.put_down()
            self.let_go()
            connection.close()
        else:
            await to_the_end(self._depart())

    async def leave(self) -> None:
        """Give the connection back; a cancellation does not interrupt this."""
        self.inside, self.left = False, True
        if self.lease.connection is None:
            self.lease.end()
        elif self.silent:
            await self._leave(silently=True)
        else:
            await to_the_end(self._leave())

    async def _leave(self, *, silently: bool = False) -> None:
        lease = self.lease
        try:
            if lease.owes:
                await lease.remember()
            await self._depart(silently=silently)
        finally:
            lease.end()

    async def _depart(self, *, silently: bool = False) -> None:
        # Taken first: a caller that is cancelled meanwhile and leaves again must find nothing to do.
        connection = self.lease.connection
        self.lease.put_down()
        if connection is None or connection.closed:
            return
        try:
            await self.settle_up(connection)
            if not self.lease.nodes.is_open:
                await _end(connection)  # its pool is disposed of, and would not close it
            if silently:
                connection.close()
            else:
                await greenlet_spawn(connection.close)
        except Exception as error:
            lost = self.lease.drop_if_lost(error)
            if lost:
                abandon(connection)
            await _end(connection)
            if not lost or self.lease.intent.write:
                raise
            # The caller has its rows already; only closing the dead connection failed.


async def _end(connection: Connection | None) -> None:
    """Close a connection that has failed: its state is unknown."""
    if connection is not None and not connection.closed:
        with suppress(Exception):
            await greenlet_spawn(connection.invalidate)
        with suppress(Exception):
            await greenlet_spawn(connection.close)


def _under_way() -> InterfaceError:
    """The error of a second statement while one runs: each would take a connection, and one of them would be lost."""
    return InterfaceError("cannot perform operation: another operation is in progress")


async def to_the_end(work: Awaitable[Any]) -> None:
    """Let the work go on when the caller is cancelled: a half-finished close leaks the connection."""
    await asyncio.shield(asyncio.ensure_future(work))
