"""The driver's own connection, asyncpg's, out of the same pools and under the same promise."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy.engine import Connection
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._pools.connection import WritingConnection
from lagwise._pools.driver import abandon, driver_of
from lagwise._sessions.connection import Visit
from lagwise._sessions.lease import Opening
from lagwise._sessions.lent import LentConnection

# How long a ROLLBACK may take, seconds, before its connection is given up: as long as SQLAlchemy waits for one.
_GOODBYE = 2.0
_LENDINGS = itertools.count(1)


class DriverVisit(Visit):
    """Transactions are the driver's here, so that the pool's own would not know of them."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.transaction: Any = None
        """The one that holds the promise, where there is one: the caller's are savepoints in it."""
        self.held = False
        """Whether the caller has something of the driver's that lives on in this very connection."""
        self.spoilt = False
        """Whether the driver was changed in ways that nobody can undo: codecs, listeners."""
        self._lending: tuple[Any, int] | None = None

    @property
    def bound(self) -> bool:
        """Likewise inside a transaction of the caller's."""
        return self.held or (self.transaction is None and _in_transaction(self.connection))

    @property
    def silent(self) -> bool:
        """A connection that is closed for good says goodbye."""
        return not self.spoilt and super().silent

    async def settle_in(self, connection: Connection) -> None:
        """A replica's reads need no transaction; everything else begins the one that holds the promise."""
        opening, self.transaction = self.opening, None
        driver = driver_of(connection)
        # By this number asyncpg tells whether a statement, cursor or transaction is of this lending: used after
        # it they raise, instead of running on somebody else's connection. It has no public name.
        self._lending = driver, driver._pool_release_ctr
        driver._pool_release_ctr = -next(_LENDINGS)
        if opening.pools is None or opening.engine is opening.pools.replica_reads:
            return
        reads = not opening.intent.write
        isolation = "repeatable_read" if opening.intent.snapshot else "read_committed" if reads else None
        transaction = driver.transaction(isolation=isolation, readonly=reads)
        await self.named(transaction.start, connection)
        self.transaction = transaction

    async def settle_up(self, connection: Connection) -> None:
        """End what is open, and do not give back what nobody can clean."""
        transaction, self.transaction = self.transaction, None
        try:
            if self.spoilt:
                pass  # what is open ends with the connection
            elif transaction is not None:
                async with asyncio.timeout(_GOODBYE):
                    await transaction.rollback()
            elif _in_transaction(connection):
                self.spoilt = True  # the caller's own, left open: the driver keeps count of it
        except TimeoutError:
            abandon(connection)  # the server ends what it hears no more of
            self.spoilt = True
        finally:
            self._take_back()
        if self.spoilt:
            await greenlet_spawn(connection.invalidate)

    def _take_back(self) -> None:
        if self._lending is not None:
            driver, number = self._lending
            driver._pool_release_ctr, self._lending = number, None

    def note(self, statement: str = "") -> None:
        """Note what may outlive a read; a write session's settings stay in its connection too."""
        if not self.opening.intent.write:
            self.connection.note(statement)

    def hold(self, *, spoil: bool) -> None:
        """The caller takes hold of this very connection. Raises `NoReplica` when its client's writes are elsewhere."""
        if not self.opening.intent.write and self.overtaken():
            raise self.opening.left_behind()
        self.note()
        self.note_read()
        self.held, self.spoilt = True, self.spoilt or spoil

    async def commit(self) -> None:
        """COMMIT, and keep what it says of the client's writes: where it stands, refused, or in doubt."""
        opening, connection = self.opening, self.connection
        if opening.seen is not None and opening.commit is None:
            writing = cast("WritingConnection", connection)
            writing.before_commit = opening.in_doubt
            writing.announce()
        transaction, self.transaction = self.transaction, None
        try:
            await self.named(transaction.commit, connection)
        except asyncio.CancelledError:
            abandon(connection)  # it may be in the middle of anything
            raise
        commit, opening.commit = opening.commit, None
        if commit is not None:
            await opening.opener.committed(opening.node, commit, driver_of(connection))

    async def named(self, call: Any, connection: Connection) -> Any:
        """Await `call()`; its failure tells the node, and the caller by lagwise's names where they say more."""
        engine = self.opening.engine
        assert engine is not None
        try:
            return await call()
        except Exception as error:
            if engine.lost_by(error, connection):
                self.spoilt = True
            if (named := engine.named(error, connection)) is not None:
                raise named from error
            raise
        except BaseException:
            # Cut off between what the driver sends to parse a statement and to run it, the server is left in a
            # transaction that the driver does not know of.
            self.spoilt = True
            raise
        finally:
            self._look_for_commit(connection)

    def _look_for_commit(self, connection: Connection) -> None:
        """A caller who ends the transaction by hand has committed, or may have: in doubt, until the block commits."""
        opening = self.opening
        open_here = self.transaction is not None and not driver_of(connection).is_closed()
        if opening.intent.write and open_here and opening.commit is None and not _in_transaction(connection):
            opening.in_doubt()


def _in_transaction(connection: Connection) -> bool:
    driver = driver_of(connection)
    return not driver.is_closed() and driver.is_in_transaction()  # closed, it cannot even be asked


@asynccontextmanager
async def reading(opening: Opening) -> AsyncIterator[Any]:
    """A connection that reads, on the chosen node."""
    async with _lent(opening) as (_, connection):
        yield connection


@asynccontextmanager
async def writing(opening: Opening) -> AsyncIterator[Any]:
    """A connection on the primary, in a transaction that is committed when the block succeeds."""
    async with _lent(opening) as (visit, connection):
        yield connection
        await visit.commit()


@asynccontextmanager
async def _lent(opening: Opening) -> AsyncIterator[tuple[DriverVisit, LentConnection]]:
    visit = DriverVisit(opening)
    await visit.enter()
    connection = LentConnection(visit)
    try:
        yield visit, connection
    finally:
        connection.take_back()
        await visit.leave()
