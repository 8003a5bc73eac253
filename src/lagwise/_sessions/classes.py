"""An application's session classes, made into routed ones, and their event listeners."""

from types import TracebackType
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util.concurrency import await_only, in_greenlet

from lagwise._pools.engine import RoutedEngine
from lagwise._pools.witness import watch
from lagwise._sessions.lease import Lease
from lagwise._sessions.orm import RoutingSession

_classes: dict[tuple[type, type], type] = {}


class RoutingAsyncSession(AsyncSession):
    """The asynchronous side; mixed into the application's own session class."""

    _begins_as_usual = _ends_as_usual = True

    def __init_subclass__(cls) -> None:
        cls._begins_as_usual = super().__aenter__ is AsyncSession.__aenter__
        cls._ends_as_usual = super().__aexit__ is AsyncSession.__aexit__ and super().close is AsyncSession.close

    def get_async_bind(self, mapper: Any = None, clause: Any = None, bind: Any = None, **kw: Any) -> Any:
        """As `AsyncSession.get_async_bind` of SQLAlchemy 2.1: the chosen node's engine."""
        if bind is None and isinstance(found := self.get_bind(mapper, clause, **kw), RoutedEngine):
            return found.for_async
        return super().get_async_bind(mapper, clause, bind, **kw)

    async def __aenter__(self) -> Self:
        lease: Lease | None = getattr(self.sync_session, "lease", None)
        if lease is not None:
            await lease.place()
        return self if self._begins_as_usual else await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sync = self.sync_session
        if self._ends_as_usual and getattr(sync, "closes_silently", False):
            sync.close()
        else:
            # In a task of its own, as AsyncSession does it: a cancellation half-way would lose the connection.
            await super().__aexit__(kind, error, trace)


def _mixed(mixin: type, base: type) -> type:
    """The application's session class with routing in front; made once, or every Router would leak one."""
    if issubclass(base, mixin):
        return base
    key = (mixin, base)
    if key not in _classes:
        _classes[key] = type(base.__name__, (mixin, base), {})
    return _classes[key]


def routed(class_: type[AsyncSession], sync_class: type[Session]) -> tuple[type[AsyncSession], type[Session]]:
    """These session classes, routed.

    Raises:
        ValueError: a class chooses engines by a `get_bind()` of its own.
    """
    for own, plain in ((class_, AsyncSession), (sync_class, Session)):
        if own.get_bind is not plain.get_bind and not issubclass(own, RoutingSession):
            raise ValueError(
                f"{own.__name__} has a get_bind() of its own, and the Router would not ask it: remove it, "
                "or make the sessions that need it with a session maker of your own"
            )
    return _mixed(RoutingAsyncSession, class_), _sync(sync_class)


def _sync(base: type[Session]) -> type[Session]:
    mixed = _mixed(RoutingSession, base)
    if not event.contains(mixed, "after_commit", _committed):
        # First: an application's listener may run statements, which need the transaction of the session.
        event.listen(mixed, "after_begin", _begun, insert=True)
        event.listen(mixed, "after_commit", _committed)
        event.listen(mixed, "after_rollback", _rolled_back)
    return mixed


def _begun(session: Any, _transaction: SessionTransaction, connection: Any) -> None:
    lease: Lease | None = session.lease
    if lease is None or connection.engine is not lease.engine:  # bound by the application
        return
    lease.take(connection)
    if len(session.dispatch.after_begin) > 1:
        watch(connection)
        if not lease.intent.write:
            # A listener of the application's prepares each transaction (a role, a tenant), so the session needs one.
            lease.ask_for_transaction()


def _committed(session: Any) -> None:
    """Ask for the position of a COMMIT that succeeded; a released savepoint has no COMMIT to ask for."""
    commit = session.lease.commit if session.lease is not None else None
    if commit is not None and commit.awaits_position and not commit.placed():
        await_only(commit.settle())


def _rolled_back(session: Any) -> None:
    """Ask where it stands what was read: the client may read elsewhere before the session is closed, if it ever is."""
    commit = session.lease.commit if session.lease is not None else None
    if commit is not None and commit.owes and commit.is_over and in_greenlet():
        await_only(commit.remember())
