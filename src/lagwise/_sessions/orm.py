"""The synchronous side of a routed session, which is SQLAlchemy's own: what it runs goes to the chosen node."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.util.concurrency import await_only, in_greenlet

from lagwise._pools.driver import NotConnected, abandon
from lagwise._pools.internals import has_pending
from lagwise._pools.writing import WritingConnection
from lagwise._sessions.asking import end_transaction, in_block, names_a_bind, used_after_its_end, wants_stream
from lagwise._sessions.lease import Lease


class RoutingSession(Session):
    """The synchronous side of a routed session; mixed into the application's own session class."""

    lease: Lease | None = None
    _once = False
    _over = False
    _binds_of_its_own = False
    _rested = False
    """Whether a plain read has ended since the last commit or rollback."""
    _closes_as_usual = True

    def __init_subclass__(cls) -> None:
        cls._closes_as_usual = super().close is Session.close

    def route_by(self, lease: Lease, once: bool) -> None:
        """Route by this lease; `once`: a use after the end raises, and begins nothing that would not be ended."""
        self.lease, self._once = lease, once

    def get_bind(self, *args: Any, bind: Any = None, **kw: Any) -> Engine | Connection:
        """The chosen node's engine. Outside a statement this has no side effects and may answer the default."""
        lease = self.lease
        if bind is not None or lease is None:
            return super().get_bind(*args, bind=bind, **kw)
        if self._over or self._binds_of_its_own:
            if self._over:
                raise used_after_its_end()
            if (found := super().get_bind(*args, **kw)) is not self.bind:
                return found
        engine = lease.engine
        if engine is None or lease.may_be_overtaken:
            if in_greenlet():
                self._choose(lease)
            return lease.engine or lease.nodes.default_engine.sync_engine
        return engine

    def bind_mapper(self, mapper: Any, bind: Any) -> None:
        """As `Session.bind_mapper`: statements on this mapper go where the application says."""
        self._binds_of_its_own = True
        super().bind_mapper(mapper, bind)

    def bind_table(self, table: Any, bind: Any) -> None:
        """As `Session.bind_table`: statements on this table go where the application says."""
        self._binds_of_its_own = True
        super().bind_table(table, bind)

    def begin(self, nested: bool = False) -> SessionTransaction:
        """Choose the node, then begin; in a read session, a READ ONLY transaction."""
        if self._over:
            raise used_after_its_end()
        if (lease := self.lease) is not None:
            self._choose(lease)
            if not lease.intent.write and in_greenlet():
                lease.ask_for_transaction()
        return super().begin(nested=nested)

    def connection(self, *args: Any, **kw: Any) -> Connection:
        """As `Session.connection`; from here on the session keeps this connection."""
        lease = self.lease
        routed = lease is not None and not lease.intent.write and in_greenlet()
        bound = names_a_bind(*args, **kw)  # asked before: `Session` takes the bind out of its arguments
        while True:
            if lease is not None and routed:
                self._choose(lease)
            try:
                connection = super().connection(*args, **kw)
                break
            except Exception as error:
                if lease is None or not routed or bound or not self._goes_elsewhere(lease, error):
                    raise
        if isinstance(connection, WritingConnection):
            connection.lent = connection.touched = True  # by the driver's own means anything can be set
        elif lease is not None and lease.connection is not None:
            lease.connection.touched = True
            lease.hold()
        return connection

    def _choose(self, lease: Lease) -> None:
        """Choose a node unless there is one; leave a node that lacks what the client has written since."""
        if not in_greenlet():
            return
        if lease.connection is not None or lease.transactional:
            self._notice_end(lease)
        if lease.may_be_overtaken:
            self._confirm_current(lease)
        if lease.engine is None:
            await_only(lease.place())

    def _notice_end(self, lease: Lease) -> None:
        """Forget a transaction that the application has ended, and its connection."""
        if not self.in_transaction():
            lease.put_down()
            lease.end_transaction()

    def _confirm_current(self, lease: Lease) -> None:
        """Leave a node that lacks what the client has written since; raises `NoReplica` where the session must stay."""
        taken = lease.connection is not None and self.in_transaction()
        if not lease.confirm_current(snapshot_taken=taken):
            end_transaction(self)
            lease.move()

    def execute(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """As `Session.execute`, on a node that answers and has what the client wrote."""
        return self._where_it_succeeds(super().execute, statement, args, kw)

    def scalar(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """As `Session.scalar`, likewise."""
        return self._where_it_succeeds(super().scalar, statement, args, kw)

    def scalars(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """As `Session.scalars`, likewise."""
        return self._where_it_succeeds(super().scalars, statement, args, kw)

    def _where_it_succeeds(
        self, run: Callable[..., Any], statement: Any, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Any:
        """Run a read session's first statement on one node after the other: nothing has been returned yet."""
        lease = self.lease
        if self._over:
            raise used_after_its_end()
        if lease is None or lease.intent.write or "bind" in (kw.get("bind_arguments") or ()):
            return run(statement, *args, **kw)
        if lease.connection is not None or lease.transactional:
            self._notice_end(lease)
        if lease.may_be_overtaken:
            self._confirm_current(lease)
        if wants_stream(statement, kw.get("execution_options")):
            lease.ask_for_transaction()
        outermost = lease.connection is None  # a listener may run a statement while another one has the connection
        while True:
            if lease.engine is None:
                await_only(lease.place())
            try:
                result = run(statement, *args, **kw)
                break
            except Exception as error:
                if not self._goes_elsewhere(lease, error):
                    raise
        lease.note_read()
        if lease.remembers:
            await_only(lease.remember())
        if outermost and lease.may_rest:
            self._rest(lease)
        return result

    def _goes_elsewhere(self, lease: Lease, error: Exception) -> bool:
        """Leave the node that has failed, if what failed may run on another one.

        Where no connection could be had, a transaction that the application has begun has begun on no node, and goes
        on at another one.
        """
        nothing_taken = isinstance(error, NotConnected) and lease.connection is None
        # A held connection may have execution options, which another connection would not have.
        if lease.held or (in_block(self) and not nothing_taken) or not lease.leave_failed_node(error):
            return False
        if not nothing_taken:
            with suppress(Exception):
                end_transaction(self)
        return True

    def _rest(self, lease: Lease) -> None:
        """Give the connection back: the rows are read, and each statement has a snapshot of its own anyway."""
        begun = self.get_transaction()
        if begun is None or begun.origin is not SessionTransactionOrigin.AUTOBEGIN or has_pending(self):
            return
        self._rested = True
        begun.close()
        lease.put_down()

    def rollback(self) -> None:
        """As `Session.rollback`; also expires objects of statements whose connection went back already."""
        super().rollback()
        if self._rested:
            self._rested = False
            self.expire_all()

    @property
    def closes_silently(self) -> bool:
        """Whether closing now sends nothing: then there is nothing to wait for, and no task is needed."""
        lease = self.lease
        if lease is not None and self._closes_as_usual and (lease.commit is None or lease.commit.covered):
            return not self.in_transaction() or (lease.ends_silently and not lease.held)
        return False

    def _remember(self, lease: Lease) -> None:
        """Ask for the position that the client may have seen; a session that is cancelled then keeps no connection."""
        try:
            await_only(lease.remember())
        except BaseException:
            if lease.connection is not None:
                abandon(lease.connection)  # to end it gracefully would wait again, and be cancelled again
            self.invalidate()
            raise

    def close(self) -> None:
        """Close; a later use of the session chooses its node anew."""
        lease = self.lease
        if lease is None:
            super().close()
            return
        try:
            if (lease.held if lease.commit is None else not lease.commit.covered) and lease.owes and in_greenlet():
                self._remember(lease)
            super().close()
        except Exception as error:
            if lease.intent.write or not lease.drop_if_lost(error):
                raise
            # The caller has its rows already; only closing the dead connection failed.
            self.invalidate()
        finally:
            self._rested = False
            self._over = self._once
            lease.end()
