"""The driver's own connection, asyncpg's, out of the same pools and under the same promise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from asyncpg import InterfaceError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise.connection import BEFORE_COMMIT, abandon, announce_commit, driver_of, note_statement
from lagwise.opening import Opening
from lagwise.visit import Visit

# What runs one SQL text and returns everything it found: it may be run again elsewhere.
_STATEMENTS = frozenset({"execute", "fetch", "fetchrow", "fetchval", "fetchmany"})
# What only asks the driver.
_QUESTIONS = frozenset({"get_server_pid", "get_server_version", "get_settings", "is_closed", "is_in_transaction"})
# What leaves nothing in the driver, and in the server only what a reset undoes.
_RESETTABLE = frozenset({
    "copy_from_query", "copy_from_table", "copy_records_to_table", "copy_to_table",
    "cursor", "executemany", "prepare", "transaction",
})  # fmt: skip


class _DriverVisit(Visit):
    """Transactions are the driver's here, so that the pool's own would not know of them."""

    spoilt = False
    """Whether the driver was changed in ways that nobody can undo: codecs, listeners."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.transaction: Any = None

    async def settle_in(self, connection: Connection) -> None:
        """A replica's reads need no transaction; everything else begins the one that holds the promise."""
        opening, self.transaction = self.opening, None
        if opening.pools is None or opening.engine is opening.pools.replica_reads:
            return
        reads = not opening.intent.write
        isolation = "repeatable_read" if opening.intent.snapshot else "read_committed" if reads else None
        transaction = driver_of(connection).transaction(isolation=isolation, readonly=reads)
        await self.named(transaction.start, connection)
        self.transaction = transaction

    async def settle_up(self, connection: Connection) -> None:
        """End what is open, and do not give back what nobody can clean."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            await transaction.rollback()
        elif driver_of(connection).is_in_transaction():
            self.spoilt = True  # the caller's own, left open: the driver keeps count of it
        if self.spoilt:
            await greenlet_spawn(connection.invalidate)

    def note(self, statement: str) -> None:
        """Note what may outlive a read; a write session's settings stay in its connection too."""
        if not self.opening.intent.write:
            note_statement(self.connection, statement)

    async def commit(self) -> None:
        """COMMIT, and keep what it says of the client's writes: where it stands, refused, or in doubt."""
        opening, connection = self.opening, self.connection
        if opening.seen is not None:
            connection.info[BEFORE_COMMIT] = opening.in_doubt
            announce_commit(connection)
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
            engine.lost_by(error, connection)
            if (named := engine.named(error, connection)) is not None:
                raise named from error
            raise


class LentConnection:
    """asyncpg's Connection for as long as the block lasts, with all its methods."""

    def __init__(self, visit: _DriverVisit) -> None:
        self._visit: _DriverVisit | None = visit

    def __getattr__(self, name: str) -> Any:
        visit = self._visit
        if visit is None:
            raise InterfaceError(f"cannot use {name}: this connection went back to its pool when its block ended")
        if name in _STATEMENTS:
            return partial(self._run, visit, name)
        found = getattr(driver_of(visit.connection), name)
        if name not in _QUESTIONS:
            visit.bound = True
            visit.spoilt = visit.spoilt or name not in _RESETTABLE
            visit.note("")
        return found

    async def _run(self, visit: _DriverVisit, name: str, query: str, *args: Any, **kw: Any) -> Any:
        async def statement() -> Any:
            visit.note(query)
            run = getattr(driver_of(visit.connection), name)
            return await visit.named(partial(run, query, *args, **kw), visit.connection)

        return await visit.run(statement)


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
async def _lent(opening: Opening) -> AsyncIterator[tuple[_DriverVisit, LentConnection]]:
    visit = _DriverVisit(opening)
    await visit.arrive()
    connection = LentConnection(visit)
    try:
        yield visit, connection
    finally:
        connection._visit = None
        await visit.leave()
