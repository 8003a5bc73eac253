"""`db.read` and `db.write`: the session makers, and their connections for those who want no session."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.ext.asyncio.session import _AsyncSessionContextManager
from sqlalchemy.orm import Session

from lagwise._client.causality import Causality
from lagwise._nodes.intent import Intent
from lagwise._sessions import driver_connection as raw
from lagwise._sessions.core import RoutedConnection
from lagwise._sessions.lease import Opener, Opening
from lagwise._sessions.orm import RoutingSession, routed
from lagwise.errors import ReadOnly


class _Block(_AsyncSessionContextManager[AsyncSession]):
    """A session for a block. Nothing is begun on entering, so that a first statement that fails can run elsewhere."""

    async def __aenter__(self) -> AsyncSession:
        return await self.async_session.__aenter__()


class ReadBlock(_Block):
    """Nothing is committed; what would be forgotten is refused, with `ReadOnly`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                _refuse_pending(self.async_session.sync_session)
        finally:
            await self.async_session.__aexit__(kind, error, trace)


class WriteBlock(_Block):
    """Committed at the end; the application may commit before."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.async_session.commit()
        finally:
            await self.async_session.__aexit__(kind, error, trace)


def _refuse_pending(session: Session) -> None:
    """Raise `ReadOnly` for objects that were added or deleted in a read session."""
    if not (session._new or session._deleted):  # what the public names make a set of, for every session
        return
    what, objects = ("added", session.new) if session.new else ("deleted", session.deleted)
    names = ", ".join(sorted({type(each).__name__ for each in objects}))
    raise ReadOnly(
        f"objects were {what} in a read session ({names}) and nothing was written. "
        "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."
    )


class RoutingSessionMaker(async_sessionmaker[AsyncSession]):
    """`db.read` or `db.write`: an `async_sessionmaker` whose sessions are routed.

    With its conventions: a plain call does not commit, `begin()` commits on success.
    """

    def __init__(self, opener: Opener, *, write: bool, options: dict[str, Any]) -> None:
        if {"bind", "binds"} & options.keys():
            raise ValueError("session_options cannot take bind or binds: the Router chooses each session's engine")
        options = {"expire_on_commit": False, **options}
        class_ = options.pop("class_", AsyncSession)
        sync_class = options.pop("sync_session_class", None) or class_.sync_session_class
        class_, sync_class = routed(class_, sync_class)
        super().__init__(class_=class_, sync_session_class=sync_class, **options)
        self._opener = opener
        self._write = write
        self._plain = Intent(write=write)

    def __call__(
        self, *, max_staleness: float | None = None, primary: bool = False, snapshot: bool = False, **local_kw: Any
    ) -> AsyncSession:
        """A session on one node.

        Args:
            max_staleness: how stale this read may be, seconds; never more than the policy's `max_lag`.
            primary: read from the primary all the same, still read-only.
            snapshot: one REPEATABLE READ snapshot for the whole session; streaming and savepoints work.
            local_kw: as for `async_sessionmaker`.

        Raises:
            NotOpen: the Router is not running.
            ValueError: `max_staleness` is negative, or reading options are given to `db.write`.
        """
        intent = self._intent(max_staleness, primary, snapshot)
        self._opener.require_open()
        local_kw.setdefault("bind", self._opener.default_engine())
        session = super().__call__(**local_kw)
        sync: RoutingSession = session.sync_session  # type: ignore[assignment]
        sync.opening = Opening(self._opener, intent, Causality.current(), session.info)
        return session

    def begin(self) -> _AsyncSessionContextManager[AsyncSession]:
        """A session in a block: `db.write` commits when the block succeeds and rolls back when it fails."""
        return super().begin() if self._write else ReadBlock(self())

    def connect(
        self, *, max_staleness: float | None = None, primary: bool = False, snapshot: bool = False
    ) -> AsyncConnection:
        """SQLAlchemy Core without a session, for reads: `async with db.read.connect() as connection`.

        Options and errors as for `db.read()`; on a replica a statement is one round trip.
        """
        if self._write:
            raise ValueError(
                "connections without a session are for reads: write with db.write() and its execute(), "
                "or with db.write.asyncpg()"
            )
        return RoutedConnection(self._opening(self._intent(max_staleness, primary, snapshot)))

    def asyncpg(
        self, *, max_staleness: float | None = None, primary: bool = False, snapshot: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        """The driver's own connection, out of the same pools and under the same promise.

        `async with db.read.asyncpg() as connection: await connection.fetch("SELECT ... $1", 1)`. From `db.write` it
        comes in a transaction that is committed when the block succeeds. Options and errors as for a session.

        Raises:
            ValueError: the database is not PostgreSQL.
        """
        opening = self._opening(self._intent(max_staleness, primary, snapshot))
        if self._opener.default_engine().dialect.driver != "asyncpg":
            raise ValueError(
                "asyncpg() needs PostgreSQL (postgresql+asyncpg://...); use a session or db.read.connect()"
            )
        return raw.writing(opening) if self._write else raw.reading(opening)

    def _intent(self, max_staleness: float | None, primary: bool, snapshot: bool) -> Intent:
        if max_staleness is None and not primary and not snapshot:
            return self._plain
        if self._write and (max_staleness is not None or primary or snapshot):
            raise ValueError("max_staleness, primary and snapshot are for db.read; a write session is on the primary")
        if max_staleness is not None and not max_staleness >= 0:
            raise ValueError(f"max_staleness must be at least 0 seconds, not {max_staleness!r}")
        return Intent(write=self._write, max_staleness=max_staleness, primary=primary, snapshot=snapshot)

    def _opening(self, intent: Intent) -> Opening:
        self._opener.require_open()
        return Opening(self._opener, intent, Causality.current(), {})
