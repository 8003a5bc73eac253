"""FastAPI: session dependencies, the lifespan that runs the Router, and the names an application imports."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Annotated, Any, cast

from fastapi import FastAPI, HTTPException, WebSocketException, params
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from lagwise.asgi import CausalityMiddleware
from lagwise.errors import NoPrimary, NoReplica, NotOpen
from lagwise.health import health_router
from lagwise.router import Router
from lagwise.session import refuse_pending

__all__ = [
    "CausalityMiddleware",
    "ReadSession",
    "RoutedSession",
    "WriteSession",
    "health_router",
    "lifespan",
    "read_session",
    "reads",
    "routed_session",
    "write_session",
    "writes",
]

_STATE = "lagwise"
# https://www.rfc-editor.org/rfc/rfc9110#name-safe-methods; QUERY: RFC 9110's safe method with a body.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
_TRY_AGAIN_LATER = 1013  # https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def lifespan(
    *routers: Router, inner: Lifespan | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """The application's lifespan: opens the routers before it serves, closes them when it stops.

    The first router is the one that `ReadSession` and its like use. `inner` is a lifespan the
    application has already; it runs inside, with the routers open, and its state is kept.
    """
    if not routers:
        raise ValueError("lifespan needs a Router: FastAPI(lifespan=lifespan(db))")

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with _all_of(routers):
            # Where a server hands lifespan state on, mounted applications see it too.
            setattr(app.state, _STATE, routers[0])
            if inner is None:
                yield {_STATE: routers[0]}
            else:
                async with inner(app) as state:
                    yield {_STATE: routers[0], **(state or {})}

    return run


@asynccontextmanager
async def _all_of(routers: tuple[Router, ...]) -> AsyncIterator[None]:
    if not routers:
        yield
        return
    async with routers[0], _all_of(routers[1:]):
        yield


def reads(
    db: Router | None = None,
    *,
    max_staleness: float | None = None,
    primary: bool = False,
    snapshot: bool = False,
) -> params.Depends:
    """A dependency on a read session with a bound of its own, or of a second database.

    `Fresh = Annotated[AsyncSession, reads(max_staleness=1.0)]`; options as for `db.read`.
    """

    async def read(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        maker = _router(db, connection).read
        session = maker(max_staleness=max_staleness, primary=primary, snapshot=snapshot)
        async with _Serving(session, connection):
            yield session
            refuse_pending(session)

    return _depends(read)


def writes(db: Router | None = None) -> params.Depends:
    """A dependency on a write session: committed before the response starts, rolled back on an error."""

    async def write(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        session = _router(db, connection).write()
        async with _Serving(session, connection):
            yield session
            await session.commit()

    return _depends(write)


async def read_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """What `ReadSession` depends on; a key for `app.dependency_overrides`."""
    session = _router(None, connection).read()
    async with _Serving(session, connection):
        yield session
        refuse_pending(session)


async def write_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """What `WriteSession` depends on; a key for `app.dependency_overrides`."""
    session = _router(None, connection).write()
    async with _Serving(session, connection):
        yield session
        await session.commit()


async def routed_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """What `RoutedSession` depends on: the HTTP method decides; a WebSocket may write."""
    if connection.scope.get("method") in _SAFE:
        session = _router(None, connection).read()
        async with _Serving(session, connection):
            yield session
            refuse_pending(session)
    else:
        session = _router(None, connection).write()
        async with _Serving(session, connection):
            yield session
            await session.commit()


class _Serving:
    """Enters a session on behalf of a request: when no node can serve, the client is told to come back."""

    __slots__ = ("_connection", "_session")

    def __init__(self, session: AsyncSession, connection: HTTPConnection) -> None:
        self._session = session
        self._connection = connection

    async def __aenter__(self) -> None:
        try:
            await self._session.__aenter__()
        except (NoPrimary, NoReplica) as error:
            raise self._unavailable() from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.__aexit__(kind, error, trace)
        if isinstance(error, NoPrimary | NoReplica):
            raise self._unavailable() from error

    def _unavailable(self) -> HTTPException | WebSocketException:
        if self._connection.scope["type"] == "websocket":
            return WebSocketException(_TRY_AGAIN_LATER)
        return HTTPException(503, "The database cannot serve this request right now.", {"Retry-After": "1"})


def _router(db: Router | None, connection: HTTPConnection) -> Router:
    if db is not None:
        return db
    found = connection.scope.get("state", {}).get(_STATE) or getattr(connection.app.state, _STATE, None)
    if found is None:
        raise NotOpen("no Router runs in this application: create it with FastAPI(lifespan=lifespan(db))")
    return cast("Router", found)


def _depends(provide: Callable[[HTTPConnection], AsyncIterator[AsyncSession]]) -> params.Depends:
    # "function": the session ends, and commits, before the response starts. FastAPI's default for
    # dependencies with yield has answered 200 by then.
    return params.Depends(provide, scope="function")


ReadSession = Annotated[AsyncSession, _depends(read_session)]
"""A read session on a node that has everything this client wrote."""
WriteSession = Annotated[AsyncSession, _depends(write_session)]
"""A session on the primary; COMMIT precedes the response, and a failed COMMIT is a 500."""
RoutedSession = Annotated[AsyncSession, _depends(routed_session)]
"""A read session for GET, HEAD, OPTIONS and QUERY, a write session for every other method."""
