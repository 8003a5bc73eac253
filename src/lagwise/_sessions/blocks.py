"""Sessions for a block: objects never flushed in a read session are refused, a write session is committed."""

from types import TracebackType

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from lagwise._pools.internals import SessionBlock, has_pending
from lagwise.errors import ReadOnly


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
                _refuse_pending(self.async_session.sync_session)
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


def _refuse_pending(session: Session) -> None:
    """Raise `ReadOnly` for objects that were added or deleted in a read session."""
    if not has_pending(session):
        return
    what, objects = ("added", session.new) if session.new else ("deleted", session.deleted)
    names = ", ".join(sorted({type(each).__name__ for each in objects}))
    raise ReadOnly(
        f"objects were {what} in a read session ({names}) and nothing was written. "
        "Use a write session: db.write instead of db.read, in FastAPI WriteSession instead of ReadSession."
    )
