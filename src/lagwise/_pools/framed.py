"""A pooled connection for reads before a pooler in transaction mode: each statement has a READ ONLY transaction."""

from typing import Any, cast

from sqlalchemy.engine import RootTransaction

from lagwise._decide.effect import Effect
from lagwise._pools.connection import PooledConnection
from lagwise._pools.driver import abandon, driver_of
from lagwise._pools.translation import WAY_OUT
from lagwise.errors import ReadOnly, RoutingError


class FramedConnection(PooledConnection):
    """A connection for reads that no fence can be set in: BEGIN READ ONLY goes before each statement, ROLLBACK after.

    The transaction that a session asks for lasts as long as it says.
    """

    framed = False
    """Whether a statement has been given a transaction that has not ended yet."""

    def note(self, statement: str) -> None:
        """As `PooledConnection.note`.

        Raises:
            ReadOnly: code that could not be read has ended the transaction: what follows would not be READ ONLY.
        """
        if self.framed and not driver_of(self).is_closed():
            if not driver_of(self).is_in_transaction():
                abandon(self)
                raise ReadOnly("a statement has ended the READ ONLY transaction that it was given. " + WAY_OUT)
            if self.failed and not self.transaction_asked:
                self._end_frame()
        super().note(statement)
        self.framed = True

    def refuse_lifting(self, effect: Effect, *, transaction_asked: bool) -> None:
        """As `PooledConnection.refuse_lifting`; there is always a transaction that a statement may end."""
        super().refuse_lifting(effect, transaction_asked=True)
        if effect & Effect.BEGINS:
            raise RoutingError(
                'with pooling="transaction" a read session begins a transaction by session.begin(), connection.begin() '
                "or connection.transaction(), not by a statement"
            )

    def ask_for_transaction(self, isolation: str = "READ COMMITTED") -> None:
        """As `PooledConnection.ask_for_transaction`."""
        if not self.transaction_asked:
            self.framed = self.failed = False
        super().ask_for_transaction(isolation)

    def begin(self) -> RootTransaction:
        """As `Connection.begin`."""
        return super().begin() if self.in_transaction() else _Framed(self)

    def _end_frame(self) -> None:
        self.framed = self.failed = False
        if not (self.closed or self.invalidated):
            cast("Any", self.connection.dbapi_connection).rollback()


class _Framed(RootTransaction):
    """The transaction of a session, or of one statement. There is nothing to commit: it is rolled back in any case.

    So what unseen code may have set does not stay in the server process.
    """

    __slots__ = ()
    connection: FramedConnection

    def close(self) -> None:
        try:
            super().close()
        except Exception:
            if self.connection.transaction_asked:
                raise
            abandon(self.connection)  # the rows are read, and a server ends what its client has left open
        finally:
            self._ended()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self._ended()

    def commit(self) -> None:
        try:
            self.connection._end_frame()
            super().commit()
        finally:
            self._ended()

    def _ended(self) -> None:
        connection = self.connection
        connection.framed = connection.failed = False
        if connection.transaction_asked:
            connection.end_transaction()
