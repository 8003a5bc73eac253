"""`db.read` and `db.write`: the session makers, their blocks, and their connections without a session."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from difflib import get_close_matches
from inspect import signature
from types import TracebackType
from typing import Any, TypedDict, Unpack

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from lagwise._client.causality import current
from lagwise._given import instead
from lagwise._nodes.intent import Intent
from lagwise._nodes.ledger import Ledger
from lagwise._nodes.nodes import Nodes
from lagwise._pools.internals import SessionBlock, has_pending
from lagwise._pools.joined import Joined
from lagwise._pools.translation import WAY_OUT
from lagwise._sessions.classes import routed
from lagwise._sessions.core import RoutedConnection
from lagwise._sessions.driver_connection import DriverBlock
from lagwise._sessions.lease import Lease
from lagwise._sessions.orm import RoutingSession
from lagwise.errors import ReadOnly

_BINDS = frozenset({"bind", "binds"})
# Of the makers, and of the sessions themselves.
_OPTIONS = {*signature(Session).parameters, "class_", "sync_session_class"} - _BINDS
UNROUTED = "lagwise.unrouted"


class ReadOptions(TypedDict, total=False):
    """What a read may ask for, as for `db.read()`."""

    max_staleness: float | None
    primary: bool
    snapshot: bool
    timeout: float | None


class SessionOptions(ReadOptions, total=False):
    """What a read or a write may ask for, as for `db.read()` and `db.write()`."""

    sticky: bool


class _RoutedBlock(SessionBlock):
    """A session for a block. Entering begins no transaction, so that a failed first statement can run elsewhere."""

    async def __aenter__(self) -> AsyncSession:
        return await self.async_session.__aenter__()


class ReadBlock(_RoutedBlock):
    """Nothing is committed; objects added or deleted and never flushed raise `ReadOnly` at the end."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                session = self.async_session.sync_session
                if has_pending(session):
                    raise _never_written(session)
        finally:
            await self.async_session.__aexit__(kind, error, trace)


class WriteBlock(_RoutedBlock):
    """The session is committed at the end of the block; the application may commit before."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.async_session.commit()
        finally:
            await self.async_session.__aexit__(kind, error, trace)


class RoutingSessionMaker(async_sessionmaker[AsyncSession]):
    """`db.read` or `db.write`: an `async_sessionmaker` whose sessions are routed.

    With its conventions: a plain call does not commit, `begin()` commits on success.
    """

    def __init__(self, nodes: Nodes, ledger: Ledger, *, write: bool, options: dict[str, Any]) -> None:
        class_, sync_class = routed(options["class_"], options["sync_session_class"])
        super().__init__(**{**options, "class_": class_, "sync_session_class": sync_class})
        self._nodes = nodes
        self._ledger = ledger
        self._write = write
        self._plain = Intent(write=write)
        self._own_binds = False
        self._lease_of: Callable[..., Lease] = Lease
        self.joined: Joined | None = None
        """The connection that all sessions share at present, in a test."""

    def join(self, joined: Joined | None, lease_of: Callable[..., Lease]) -> None:
        """Let sessions share this connection from here on, by such leases; None: as usual."""
        self.joined, self._lease_of = joined, lease_of

    def configure(self, **new_kw: Any) -> None:
        """As `async_sessionmaker.configure`; with a `bind` or `binds`, later sessions are not routed."""
        super().configure(**new_kw)
        self._own_binds = _binds(self.kw)

    def __call__(
        self,
        *,
        max_staleness: float | None = None,
        primary: bool = False,
        snapshot: bool = False,
        timeout: float | None = None,
        sticky: bool = True,
        **local_kw: Any,
    ) -> AsyncSession:
        """A session on one node.

        Args:
            max_staleness: how stale this read may be, seconds; never more than the policy's `max_lag`.
            primary: read from the primary, still read-only.
            snapshot: one REPEATABLE READ snapshot for the whole session.
            timeout: how long each statement may take, seconds; the server stops one that takes longer. Not counted: the
                wait for a connection, COMMIT and ROLLBACK. In a stream it is the limit of each batch.
            sticky: whether what this session commits must be seen by its client's later reads. False is for
                bookkeeping (a last-seen stamp, a counter, an audit row): no token is made, and the client reads as if
                it had not written. A session that writes both kinds stays sticky.
            local_kw: as for `async_sessionmaker`; with `close_resets_only=False` a use after the end raises. A session
                with a `bind` or `binds` of its own is not routed, and `session.info["lagwise.unrouted"]` says so.

        Raises:
            NotOpen: the Router is not running.
            ValueError: `max_staleness` is negative, `timeout` not above 0, reading options are given to `db.write`, or
                `sticky` to `db.read`.
        """
        nodes, intent = self._nodes, self._plain
        if max_staleness is not None or primary or snapshot or timeout is not None or not sticky:
            intent = self.intent(
                max_staleness=max_staleness, primary=primary, snapshot=snapshot, timeout=timeout, sticky=sticky
            )
        bind = nodes.engine_to_show()
        if self._own_binds or (local_kw and not _BINDS.isdisjoint(local_kw) and _binds(local_kw)):
            session = super().__call__(**local_kw)
            session.info[UNROUTED] = "it has a bind of its own"
            return session
        session = super().__call__(bind=bind, **local_kw)
        sync: RoutingSession = session.sync_session  # type: ignore[assignment]
        lease = self._lease_of(nodes, self._ledger, intent, current(), session.info)
        if self._write and (seen := lease.seen) is not None and seen.served is not None:
            lease.decide(seen.served.answer, sync)
        sync.route_by(lease, local_kw.get("close_resets_only") is False if local_kw else False)
        return session

    def begin(self, **options: Unpack[SessionOptions]) -> SessionBlock:
        """A session in a block: `db.write` commits when the block succeeds and rolls back when it fails.

        On `db.read` no transaction begins, and objects that are never flushed raise `ReadOnly` at the end. Options and
        errors as for a session.
        """
        session = self(**options)
        return SessionBlock(session) if self._write else ReadBlock(session)

    def connect(self, **options: Unpack[ReadOptions]) -> AsyncConnection:
        """SQLAlchemy Core without a session, for reads: `async with db.read.connect() as connection`.

        Options and errors as for `db.read()`; a statement is one round trip.

        Raises:
            ValueError: called on `db.write`.
        """
        if self._write:
            raise ValueError(
                "connections without a session are for reads: write with db.write() and its execute(), "
                "or with db.write.asyncpg()"
            )
        lease = self._lease(options)
        return RoutedConnection(lease.nodes.engine_to_show(), lease)

    def asyncpg(self, **options: Unpack[SessionOptions]) -> AbstractAsyncContextManager[Any]:
        """The driver's own connection, from the same pools and with the same promises.

        `async with db.read.asyncpg() as connection: await connection.fetch("SELECT ... $1", 1)`. From `db.write` it
        comes in a transaction that is committed when the block succeeds. Options and errors as for a session.

        Raises:
            ValueError: the database is not PostgreSQL.
        """
        lease = self._lease(options)
        if lease.nodes.engine_to_show().dialect.driver != "asyncpg":
            raise ValueError(
                "asyncpg() needs PostgreSQL (postgresql+asyncpg://...); use a session or db.read.connect()"
            )
        return DriverBlock(lease)

    def _lease(self, options: Mapping[str, Any]) -> Lease:
        intent = self.intent(**options) if options else self._plain
        return self._lease_of(self._nodes, self._ledger, intent, current(), {})

    def intent(self, **options: Unpack[SessionOptions]) -> Intent:
        """What a session with these options is opened for. Raises `ValueError`."""
        return Intent.of(write=self._write, **options)


def _binds(options: Mapping[str, Any]) -> bool:
    """Whether these options choose the engine themselves."""
    return options.get("bind") is not None or bool(options.get("binds"))


def _never_written(session: Session) -> ReadOnly:
    """The error for objects that were added or deleted in a read session."""
    what, objects = ("added", session.new) if session.new else ("deleted", session.deleted)
    names = ", ".join(sorted({type(each).__name__ for each in objects}))
    return ReadOnly(f"objects were {what} in a read session ({names}) and nothing was written. " + WAY_OUT)


def options_of(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The session options, with the session class in them.

    Raises:
        ValueError: they choose engines, name a class that is none, or have what SQLAlchemy's own classes do not take.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"session_options must be a mapping, as for async_sessionmaker{instead(given)}")
    options = {"expire_on_commit": False, **(given or {})}
    if not _BINDS.isdisjoint(options):
        raise ValueError("session_options cannot take bind or binds: the Router chooses each session's engine")
    class_ = options.setdefault("class_", AsyncSession)
    if not (isinstance(class_, type) and issubclass(class_, AsyncSession)):
        raise ValueError("session_options: class_ must be AsyncSession, or a class made from it")
    sync_class = options.setdefault("sync_session_class", None) or class_.sync_session_class
    if not (isinstance(sync_class, type) and issubclass(sync_class, Session)):
        raise ValueError("session_options: sync_session_class must be Session, or a class made from it")
    own = class_.__init__ is not AsyncSession.__init__ or sync_class.__init__ is not Session.__init__
    for name in options.keys() - _OPTIONS if not own else ():
        near = get_close_matches(str(name), _OPTIONS, 1)
        raise ValueError(f"session_options: {name} is not known{f': did you mean {near[0]}?' if near else ''}")
    return {**options, "sync_session_class": sync_class}
