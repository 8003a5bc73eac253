"""One connection without a session: taken where the client may read or write, changed when its node fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon
from lagwise._sessions.lease import Opening, give_way
from lagwise.errors import NotOpen, RoutingError

T = TypeVar("T")


class Visit:
    """What a session does for itself, for those who hold a bare connection."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.inside = False
        """Whether it has begun and not ended: only then does a lost connection get another in its place."""

    @property
    def connection(self) -> PooledConnection:
        """The connection of the moment. Raises `RoutingError` when it was lost and nothing came in its place."""
        if self.opening.connection is None:
            raise RoutingError("this connection was lost, and its block cannot go on. Begin a new one.")
        return self.opening.connection

    @property
    def bound(self) -> bool:
        """Whether the caller holds on to this very connection: a transaction, a cursor, a prepared statement."""
        return False

    @property
    def taken(self) -> bool:
        """Whether something was read in the transaction of the moment: a snapshot is as of then."""
        return self.opening.started

    @property
    def silent(self) -> bool:
        """Whether to leave sends nothing to anyone, so that no cancellation can come between."""
        return self.opening.silent(in_transaction=True)

    async def settle_in(self, connection: Connection) -> None:
        """Called with each connection, the first and those that take its place, before it is used."""

    async def settle_up(self, connection: Connection) -> None:
        """Called with each connection before it goes back."""

    async def enter(self) -> None:
        """Choose a node and connect. Raises what `db.read()` raises, and holds nothing then."""
        try:
            await self.arrive()
        except BaseException:
            self.opening.reopen()
            raise
        self.inside = True

    async def arrive(self) -> None:
        """Choose a node and connect; another one when that fails."""
        opening = self.opening
        while True:
            engine = await opening.open()
            connection: PooledConnection | None = None
            try:
                connection = opening.connection = await greenlet_spawn(engine.connect)
                await self.settle_in(connection)
            except BaseException as error:
                try:
                    again = isinstance(error, Exception) and not opening.intent.write and opening.elsewhere(error)
                finally:  # it raises when there is nowhere else
                    opening.connection = None
                    await to_the_end(self._close(connection))
                if not again:
                    raise
            else:
                return

    async def here(self) -> None:
        """See that there is a connection, and that it has what the client has written since it was chosen.

        Raises:
            NoReplica: the client has written meanwhile, and holds on to a connection that does not show it.
        """
        opening = self.opening
        if not self.inside or opening.intent.write:
            return
        if self.overtaken():
            if self.bound:
                raise opening.left_behind()
            await to_the_end(self._depart())
            opening.move()
        if opening.connection is None:
            await self.arrive()

    def overtaken(self) -> bool:
        """Whether the client has written meanwhile, and this connection does not show it."""
        return self.opening.overtaken(in_transaction=self.taken)

    async def run(self, statement: Callable[[], Awaitable[T]]) -> T:
        """Run a statement where its client's writes are; the first one where it succeeds. Raises as `here()`."""
        await self.here()
        opening = self.opening
        while True:
            try:
                result = await statement()
            except Exception as error:
                connection = opening.connection
                if opening.started or self.bound or opening.intent.write or not opening.elsewhere(error):
                    raise
                await to_the_end(self._close(connection))
                await self.arrive()
            else:
                self.note_read()
                return result

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run what is the caller's own, where its client's writes are: nobody knows what it hands out meanwhile."""
        await self.here()
        self.note_read()
        return await call()

    def note_read(self) -> None:
        """Something was handed out, or may have been."""
        self.opening.started = True

    async def leave(self) -> None:
        """Give the connection back, and remember what was read. Cancelled or not, it ends."""
        self.inside = False
        if self.silent:
            crowded = self.opening.crowded
            await self._leave(silently=True)
            if crowded:
                await give_way()
        else:
            await to_the_end(self._leave())

    async def _leave(self, *, silently: bool = False) -> None:
        opening = self.opening
        visited = opening.node if opening.connection is not None and opening.started else None
        try:
            await self._depart(silently=silently)
            if visited is not None and opening.remembers:
                await opening.opener.has_read(opening, visited)
        finally:
            opening.reopen()

    async def _depart(self, *, silently: bool = False) -> None:
        # Taken at once: whoever is cancelled while this goes on, and leaves, finds nothing to do a second time.
        connection, self.opening.connection = self.opening.connection, None
        if connection is None or connection.closed:
            return
        try:
            await self.settle_up(connection)
            if not self._open():
                await self._close(connection)  # its pool is no more: nobody would close it there
            if silently:
                connection.close()
            else:
                await greenlet_spawn(connection.close)
        except Exception as error:
            lost = self.opening.lost(error)
            if lost:
                abandon(connection)
            await self._close(connection)
            if not lost:
                raise
            # The caller has read what there was to read; only the goodbye to a dead connection failed.

    def _open(self) -> bool:
        try:
            self.opening.opener.require_open()
        except NotOpen:
            return False
        return True

    @staticmethod
    async def _close(connection: Connection | None) -> None:
        """End one that has failed: nobody knows in which state it is."""
        if connection is not None and not connection.closed:
            with suppress(Exception):
                await greenlet_spawn(connection.invalidate)
            with suppress(Exception):
                await greenlet_spawn(connection.close)


async def to_the_end(work: Awaitable[Any]) -> None:
    """Whoever waits may be cancelled; the work goes on: to end half-way would cost the connection."""
    await asyncio.shield(asyncio.ensure_future(work))
