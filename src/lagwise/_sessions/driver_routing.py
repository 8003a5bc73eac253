"""The routing of the driver's own connection: its transactions are the driver's, unknown to SQLAlchemy."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from lagwise._pools.connection import IN_TRANSACTION, PooledConnection, takes_a_snapshot
from lagwise._pools.driver import abandon, driver_of, execute_alone
from lagwise._pools.internals import Lending
from lagwise._pools.joined_connections import JoinedReading
from lagwise._pools.writing import WritingConnection
from lagwise._sessions.driver_transaction import DriverTransaction, in_transaction
from lagwise._sessions.lease import Lease

# How long a ROLLBACK may take, seconds, before its connection is given up: as long as SQLAlchemy waits for one.
_GOODBYE = 2.0


class DriverRouting(DriverTransaction):
    """Keeps the promises of a session for a caller who holds asyncpg's own connection."""

    frames = False
    """Whether the transaction is that of one statement: nothing has asked for it."""
    misread = False
    """Whether a text has changed how the server reads those that follow: a COMMIT may be hidden in them."""
    _lending: Lending | None = None

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease)
        self.begins = lease.intent.write or lease.intent.snapshot
        """Whether a transaction begins with each connection."""

    @property
    def bound(self) -> bool:
        """Whether the caller holds this connection, or has a transaction open in it."""
        lease = self.lease
        # A block of the caller's stays bound when its connection has died: what it has set was there.
        if lease.held or lease.transactional or self.blocks:
            return True
        return lease.connection is not None and self.transaction is None and self.left_open(lease.connection)

    @property
    def pinned(self) -> bool:
        """Whether the connection is bound, or in a transaction that a statement has asked for."""
        return self.bound or (self.transaction is not None and not (self.lease.intent.snapshot or self.frames))

    @property
    def silent(self) -> bool:
        """Whether `leave()` sends nothing: not where a transaction is rolled back, or the connection is closed."""
        return not self.spoilt and self.transaction is None and super().silent

    async def begin(self) -> None:
        """Begin the transaction of a write, or of a snapshot, without waiting for a statement."""
        try:
            await self.arrive()
        except BaseException:
            self.inside = False
            self.lease.end()
            raise

    async def settle_in(self, connection: PooledConnection) -> None:
        """Lend the driver's connection; begin the transaction of a write, or of a snapshot."""
        self.transaction, self.frames = None, False
        self._lending = Lending(driver_of(connection))
        if self.begins:
            reads = self.lease.intent.snapshot
            await self.begin_transaction(connection, isolation="repeatable_read" if reads else None, readonly=reads)

    async def run_text(self, name: str, query: str, *args: Any, **kw: Any) -> Any:
        """Run one of the driver's methods on this text. Raises what `prepare_for()` and the driver raise."""
        connection = self.connection
        await self.prepare_for(query)
        if (limit := self.lease.intent.timeout) is not None:
            connection.restrict(kw.get("timeout") or limit)
        run = getattr(driver_of(connection), name)
        if connection.unsure and name == "execute" and not args and not self.lease.intent.write:
            run = partial(execute_alone, driver_of(connection))
        return await self.translating_errors(partial(run, query, *args, **kw), connection)

    async def prepare_for(self, statement: str) -> None:
        """Give a statement the transaction that it needs, and remember what it leaves.

        Raises:
            ReadOnly: the statement would lift what keeps a read from writing.
        """
        connection = self.connection
        if isinstance(connection, WritingConnection):
            connection.note(statement)
            connection.lent = connection.lent or connection.unsure  # a text may hold a COMMIT that was not seen
            self.misread = self.misread or bool(effects_of(statement, connection.catalog) & Effect.LIFTS)
            return
        if isinstance(connection, JoinedReading):
            await connection.mend()
        framed = connection.engine.pooling.framed
        effect = effects_of(statement, connection.catalog)
        if not (effect or framed):
            return
        self._heed(effect, connection)
        asked = bool(effect & IN_TRANSACTION)
        if (asked or framed) and self.transaction is None and not in_transaction(connection):
            await self.begin_transaction(connection, isolation="read_committed", readonly=True)
            self.frames = not asked
        self.frames = self.frames and not asked
        if connection.unsure and not takes_a_snapshot(statement):
            await driver_of(connection).execute("SELECT 1")

    @property
    def frames_transactions(self) -> bool:
        """Whether a transaction of the caller's must be made READ ONLY, because no fence does it."""
        return not self.lease.intent.write and self.connection.pooling.framed

    def judge(self, statement: str) -> None:
        """Remember what this statement of the caller's transaction leaves. Raises as `prepare_for()`."""
        connection = self.connection
        if isinstance(connection, WritingConnection):
            connection.note(statement)
            return
        self._heed(effects_of(statement, connection.catalog), connection)

    def _heed(self, effect: Effect, connection: PooledConnection) -> None:
        connection.refuse_lifting(effect, transaction_asked=self.transaction is not None)
        connection.pooling.refuse(effect)
        connection.remember(effect)

    async def keep_fenced(self) -> None:
        """Begin a READ ONLY transaction for all that follows, after unseen code in a transaction that has ended.

        Not at the next statement: a statement that was prepared before runs without a call to this class.
        """
        connection = self.lease.connection
        if connection is None or not connection.unsure or self.lease.intent.write:
            return
        if self.transaction is None and not driver_of(connection).is_closed() and not in_transaction(connection):
            try:
                await self.begin_transaction(connection, isolation="read_committed", readonly=True)
            except BaseException:
                abandon(connection)
                raise

    async def settle_up(self, connection: PooledConnection) -> None:
        """Roll back an open transaction, and close a connection that cannot be cleaned."""
        connection.lift()
        self._look_for_commit(connection)
        transaction, self.transaction = self.transaction, None
        try:
            self.spoilt = self.spoilt or connection.invalidated or driver_of(connection).is_closed()
            if transaction is not None and self.misread and isinstance(connection, WritingConnection):
                connection.announce()  # the transaction may be another one than that of the block: COMMIT; BEGIN
            if self.spoilt:
                pass  # what is open ends with the connection
            elif transaction is not None:
                async with asyncio.timeout(_GOODBYE):
                    await transaction.rollback()
            elif in_transaction(connection) and not connection.shared:
                self.spoilt = True  # the caller's own, left open: the driver keeps count of it
        except TimeoutError:
            abandon(connection)  # the server ends a transaction when its connection breaks
            self.spoilt = True
        except Exception:
            if not driver_of(connection).is_closed():
                raise
            self.spoilt = True  # likewise: it was lost, or cut off
        finally:
            self.let_go()
        if self.spoilt:
            await greenlet_spawn(connection.invalidate)

    def take_over(self) -> None:
        """The caller begins a transaction: that of a statement is not one's own any more."""
        self.frames = False

    def let_go(self) -> None:
        """End the lending of the driver's connection: what came from it raises from now on."""
        if self._lending is not None:
            self._lending.end()
            self._lending = None

    def hold(self, *, spoil: bool) -> None:
        """Take hold of this very connection for the caller.

        Raises:
            NoReplica: the client's writes are elsewhere.
        """
        self.lease.hold()
        self.confirm_current()
        if spoil and self.connection.shared:
            self.connection.spoilt = True
        elif spoil:
            self.spoilt = True
        if isinstance(self.connection, WritingConnection):
            self.connection.lent = True  # what the caller asks the driver is not seen
        else:
            self.connection.touched = True
        self.lease.note_read()

    async def rest(self) -> None:
        """As `ConnectionRouting.rest`; where nothing is in it, and the fence holds."""
        connection = self.lease.connection
        if connection is not None and connection.unsure:
            await self.keep_fenced()
        if (self.transaction is None or self.frames) and not self.spoilt:
            await super().rest()

    async def end_frame(self) -> None:
        """Roll back that of a statement which has failed, unless the caller holds what was prepared in it."""
        if self.frames and self.lease.connection is not None and not (self.spoilt or self.bound):
            transaction, self.transaction, self.frames = self.transaction, None, False
            with suppress(Exception):  # of a connection that is gone; the caller hears of the statement
                await transaction.rollback()
