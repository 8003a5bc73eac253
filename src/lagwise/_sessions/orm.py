"""Routed sessions: an application's own session classes, with the choice of a node in front."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.sql import Executable
from sqlalchemy.util.concurrency import await_only, in_greenlet

from lagwise._pools.connection import PooledConnection, WritingConnection
from lagwise._pools.driver import driver_of
from lagwise._sessions.lease import Opening, give_way


class RoutingSession(Session):
    """The synchronous side of a routed session; mixed into the application's own session class."""

    opening: Opening | None = None
    _closes_as_usual = True

    def __init_subclass__(cls) -> None:
        cls._closes_as_usual = super().close is Session.close

    def get_bind(self, *args: Any, bind: Any = None, **kw: Any) -> Engine | Connection:
        """The chosen node's engine. Outside a statement this has no side effects and may answer the default."""
        opening = self.opening
        if bind is not None or opening is None:
            return super().get_bind(*args, bind=bind, **kw)
        if opening.engine is None and not in_greenlet():
            return opening.opener.default_engine().sync_engine
        if opening.engine is None or opening.may_be_overtaken:
            self._choose(opening)
        assert opening.engine is not None
        return opening.engine

    def begin(self, nested: bool = False) -> SessionTransaction:
        """Choose the node, then begin."""
        if self.opening is not None:
            self._choose(self.opening)
        return super().begin(nested=nested)

    def _choose(self, opening: Opening) -> None:
        """See that there is a node, and that it has what the client has written since it was chosen."""
        if not in_greenlet():
            return
        if not opening.intent.write and opening.overtaken(in_transaction=self.in_transaction()):
            if _in_block(self):
                raise opening.left_behind()
            opening.move()
        if opening.engine is None:
            await_only(opening.open())

    def execute(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """As `Session.execute`, where it succeeds and has what the client wrote."""
        return self._where_it_succeeds(super().execute, statement, *args, **kw)

    def scalar(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """As `Session.scalar`, likewise."""
        return self._where_it_succeeds(super().scalar, statement, *args, **kw)

    def scalars(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """As `Session.scalars`, likewise."""
        return self._where_it_succeeds(super().scalars, statement, *args, **kw)

    def _where_it_succeeds(self, run: Callable[..., Any], statement: Any, *args: Any, **kw: Any) -> Any:
        """Run a read session's first statement on one node after the other: nothing has been returned yet."""
        opening = self.opening
        if opening is None or opening.intent.write:
            return run(statement, *args, **kw)
        if opening.may_be_overtaken and not _in_block(self) and opening.overtaken(in_transaction=self.in_transaction()):
            self.commit()  # sends nothing, or the end of a transaction that only read; gives the connection back
            opening.move()
        if opening.started:
            return run(statement, *args, **kw)
        opening.started = True
        if opening.engine is None:
            await_only(opening.open())
        if _streams(statement, kw.get("execution_options")):
            opening.stream()
        while True:
            try:
                return run(statement, *args, **kw)
            except Exception as error:
                if _in_block(self) or not opening.elsewhere(error):
                    raise
                with suppress(Exception):
                    self.rollback()
                await_only(opening.open())

    @property
    def closes_silently(self) -> bool:
        """Whether to close it now sends nothing to anyone: then there is nothing to wait for, and no need of a task."""
        opening = self.opening
        return self._closes_as_usual and opening is not None and opening.silent(in_transaction=self.in_transaction())

    def close(self) -> None:
        """Close, and remember what was read; a later use of the session chooses its node anew."""
        opening = self.opening
        if opening is None:
            super().close()
            return
        remembers = opening.remembers and opening.connection is not None and opening.engine is not None
        try:
            super().close()
        except Exception as error:
            if opening.intent.write or not opening.lost(error):
                raise
            # The caller has read what there was to read; only the goodbye to a dead connection failed.
            self.invalidate()
        if remembers and in_greenlet():
            await_only(opening.opener.has_read(opening, opening.node))
        opening.reopen()


class RoutingAsyncSession(AsyncSession):
    """The asynchronous side: entering it chooses the node."""

    _ends_as_usual = True

    def __init_subclass__(cls) -> None:
        cls._ends_as_usual = super().__aexit__ is AsyncSession.__aexit__ and super().close is AsyncSession.close

    async def __aenter__(self) -> Self:
        opening = getattr(self.sync_session, "opening", None)
        if opening is not None:
            await opening.open()
            if opening.crowded:
                try:
                    await give_way()
                except BaseException:
                    opening.reopen()
                    raise
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sync = self.sync_session
        if self._ends_as_usual and isinstance(sync, RoutingSession) and sync.closes_silently:
            crowded = sync.opening is not None and sync.opening.crowded
            sync.close()
            if crowded:
                await give_way()
        else:
            # In a task of its own, as AsyncSession does it: to be cancelled half-way would cost the connection.
            await super().__aexit__(kind, error, trace)


_classes: dict[tuple[type, type], type] = {}


def _mixed(mixin: type, base: type) -> type:
    """The application's session class with routing in front; made once, or every Router would leak one."""
    if issubclass(base, mixin):
        return base
    key = (mixin, base)
    if key not in _classes:
        _classes[key] = type(base.__name__, (mixin, base), {})
    return _classes[key]


def routed(class_: type[AsyncSession], sync_class: type[Session]) -> tuple[type[AsyncSession], type[Session]]:
    """These session classes, routed."""
    return _mixed(RoutingAsyncSession, class_), _sync(sync_class)


def _sync(base: type[Session]) -> type[Session]:
    mixed = _mixed(RoutingSession, base)
    if not event.contains(mixed, "after_commit", _committed):
        event.listen(mixed, "after_begin", _begun)
        event.listen(mixed, "after_commit", _committed)
    return mixed


def _in_block(session: Session) -> bool:
    """Whether the application itself has begun the transaction: changing the node would break its block."""
    begun = session.get_transaction()
    return begun is not None and begun.origin is not SessionTransactionOrigin.AUTOBEGIN


def _streams(statement: Any, options: Mapping[str, Any] | None) -> bool:
    """Whether this statement wants a server-side cursor, which lives in a transaction."""
    own: Mapping[str, Any] = statement.get_execution_options() if isinstance(statement, Executable) else {}
    return bool((own and _wants_cursor(own)) or (options and _wants_cursor(options)))


def _wants_cursor(options: Mapping[str, Any]) -> bool:
    return bool(options.get("stream_results") or options.get("yield_per"))


def _begun(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    opening: Opening | None = getattr(session, "opening", None)
    if opening is not None and connection.engine is opening.engine:  # not a bind that the application gave
        opening.connection = cast("PooledConnection", connection)
        if opening.intent.write and opening.seen is not None:
            cast("WritingConnection", connection).before_commit = opening.in_doubt


def _committed(session: Session) -> None:
    """After a COMMIT that succeeded; a released savepoint has none in doubt."""
    opening: Opening | None = getattr(session, "opening", None)
    if opening is not None and opening.commit is not None and opening.connection is not None:
        commit, opening.commit = opening.commit, None
        await_only(opening.opener.committed(opening.node, commit, driver_of(opening.connection)))
