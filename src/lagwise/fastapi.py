"""FastAPI: session dependencies, the lifespan that runs the Router, and the names an application imports."""

from lagwise._extras import extra

with extra("fastapi", "lagwise.fastapi"):
    import fastapi as _  # noqa: F401

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Annotated, Any, Self, cast

import asyncpg  # type: ignore[import-untyped]
from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocketException, params
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from starlette.requests import HTTPConnection

from lagwise._client.http import SAFE_METHODS
from lagwise._nodes.intent import Intent
from lagwise._sessions.maker import ReadBlock, ReadOptions, WriteBlock
from lagwise.asgi import CausalityMiddleware
from lagwise.errors import NoPrimary, NoReplica, NotOpen, RoutingError
from lagwise.health import ProcessDrain, health_router
from lagwise.router import Router

__all__ = [
    "CausalityMiddleware", "ReadAsyncpg", "ReadConnection", "ReadSession", "RoutedSession", "WriteAsyncpg",
    "WriteSession", "health_router", "lifespan", "read_asyncpg", "read_connection", "read_session", "reads",
    "routed_session", "write_asyncpg", "write_session", "writes",
]  # fmt: skip

_STATE = "lagwise"
_TRY_AGAIN_LATER = 1013  # https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def lifespan(
    *routers: Router, inner: Lifespan | None = None, drain: ProcessDrain | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """The application's lifespan: opens the routers before it serves, closes them when it stops.

    The first router is the one that `ReadSession` and its like use. `inner` is a lifespan the
    application has already; it runs inside, with the routers open, and its state is kept. `drain` hears SIGTERM
    meanwhile: the process leaves its load balancers before its server stops.

    Raises:
        ValueError: no router was given.
    """
    if not routers:
        raise ValueError("lifespan needs a Router: FastAPI(lifespan=lifespan(db))")

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as opened:
            for router in routers:
                await opened.enter_async_context(router)
            await opened.enter_async_context(drain or nullcontext())
            # Where a server hands lifespan state on, mounted applications see it too.
            setattr(app.state, _STATE, routers[0])
            state = await opened.enter_async_context(inner(app)) if inner is not None else None
            yield {_STATE: routers[0], **(state or {})}

    return run


def reads(
    db: Router | None = None,
    *,
    max_staleness: float | None = None,
    primary: bool = False,
    snapshot: bool = False,
    timeout: float | None = None,
) -> params.Depends:
    """A dependency on a read session with a bound of its own, or of a second database.

    `Fresh = Annotated[AsyncSession, reads(max_staleness=1.0)]`; options as for `db.read`. `max_staleness` and `timeout`
    are in seconds. Without `db` the session is of the first Router of `lifespan`.

    Raises:
        ValueError: `max_staleness` is negative, or `timeout` not above 0; raised here, not by the first request.
    """
    options = ReadOptions(max_staleness=max_staleness, primary=primary, snapshot=snapshot, timeout=timeout)
    Intent.of(write=False, **options)

    async def read(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[AsyncSession]:
        maker = _router(db, connection).read
        with _Serving(connection, tasks) as serving:
            async with ReadBlock(maker(close_resets_only=False, **options)) as session:
                yield session
                serving.ends(session)

    return _depends(read)


def writes(db: Router | None = None, *, timeout: float | None = None, sticky: bool = True) -> params.Depends:
    """A dependency on a write session: committed before the response starts, rolled back on an error.

    `Stamps = Annotated[AsyncSession, writes(sticky=False)]` is for bookkeeping; options as for `db.write`. `timeout` is
    in seconds. Without `db` the session is of the first Router of `lifespan`.

    Raises:
        ValueError: `timeout` is not above 0; raised here, not by the first request.
    """
    Intent.of(write=True, timeout=timeout, sticky=sticky)

    async def write(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[AsyncSession]:
        maker = _router(db, connection).write
        with _Serving(connection, tasks) as serving:
            async with WriteBlock(maker(close_resets_only=False, timeout=timeout, sticky=sticky)) as session:
                yield session
                serving.ends(session)

    return _depends(write)


async def read_session(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[AsyncSession]:
    """What `ReadSession` depends on; a key for `app.dependency_overrides`."""
    with _Serving(connection, tasks) as serving:
        async with ReadBlock(_router(None, connection).read(close_resets_only=False)) as session:
            yield session
            serving.ends(session)


async def write_session(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[AsyncSession]:
    """What `WriteSession` depends on; a key for `app.dependency_overrides`."""
    with _Serving(connection, tasks) as serving:
        async with WriteBlock(_router(None, connection).write(close_resets_only=False)) as session:
            yield session
            serving.ends(session)


async def routed_session(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[AsyncSession]:
    """What `RoutedSession` depends on: the HTTP method decides; a WebSocket may write."""
    db, safe = _router(None, connection), connection.scope.get("method") in SAFE_METHODS
    with _Serving(connection, tasks) as serving:
        session = (db.read if safe else db.write)(close_resets_only=False)
        async with ReadBlock(session) if safe else WriteBlock(session):
            yield session
            serving.ends(session)


async def read_connection(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[AsyncConnection]:
    """What `ReadConnection` depends on; a key for `app.dependency_overrides`."""
    with _Serving(connection, tasks) as serving:
        async with _router(None, connection).read.connect() as core:
            yield core
            serving.ends(core)


async def read_asyncpg(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[asyncpg.Connection]:
    """What `ReadAsyncpg` depends on; a key for `app.dependency_overrides`."""
    with _Serving(connection, tasks) as serving:
        async with _router(None, connection).read.asyncpg() as driver:
            yield driver
            serving.ends(driver)


async def write_asyncpg(connection: HTTPConnection, tasks: BackgroundTasks) -> AsyncIterator[asyncpg.Connection]:
    """What `WriteAsyncpg` depends on; a key for `app.dependency_overrides`."""
    with _Serving(connection, tasks) as serving:
        async with _router(None, connection).write.asyncpg() as driver:
            yield driver
            serving.ends(driver)


class _Serving:
    """Checks the request around a session's block for what the block itself cannot see."""

    __slots__ = ("_around", "_connection", "_tasks")

    def __init__(self, connection: HTTPConnection, tasks: BackgroundTasks) -> None:
        self._connection = connection
        self._tasks = tasks
        self._around = sys.exc_info()[1]

    def __enter__(self) -> Self:
        return self

    def ends(self, given: object) -> None:
        """Call this when the endpoint has ended, still inside the block: an error raised here rolls the block back.

        Raises:
            RoutingError: a dependency in between has swallowed the endpoint's exception, or what the dependency gave
                is in a background task.
        """
        # FastAPI unwinds its dependencies while it handles the endpoint's exception. A generator in between that
        # swallows the exception keeps it from this block, but `sys.exc_info()` still shows it.
        error = sys.exc_info()[1]
        if error is not None and error is not self._around and self._connection.scope["type"] == "http":
            raise RoutingError(
                "the endpoint raised, and a dependency with yield between the endpoint and the session swallowed the "
                "exception: nothing is committed. Raise it again in that dependency."
            ) from error
        for task in self._tasks.tasks:
            if any(each is given for each in (*task.args, *task.kwargs.values())):
                raise RoutingError(
                    "the session or connection of a dependency was given to a background task, which runs when it is "
                    "closed: nothing is committed. Let the task open its own: `async with db.write.begin() as session`."
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """When no node can serve, or a pool is full: answer 503 with Retry-After, or close a WebSocket with 1013."""
        if not isinstance(error, NoPrimary | NoReplica | PoolTimeout):
            return
        if self._connection.scope["type"] == "websocket":
            raise WebSocketException(_TRY_AGAIN_LATER) from error
        raise HTTPException(503, "The database cannot serve this request right now.", {"Retry-After": "1"}) from error


def _router(db: Router | None, connection: HTTPConnection) -> Router:
    found = db or connection.scope.get("state", {}).get(_STATE) or getattr(connection.app.state, _STATE, None)
    if found is None:
        raise NotOpen(
            "no Router runs in this application: create it with FastAPI(lifespan=lifespan(db)). In a test the client "
            "may run no lifespan, as httpx's ASGITransport does not: put `async with lifespan(db)(api):` around it."
        )
    return cast("Router", found)


def _depends(provide: Callable[[HTTPConnection, BackgroundTasks], AsyncIterator[Any]]) -> params.Depends:
    # "function": the session ends, and commits, before the response starts. FastAPI's default for
    # dependencies with yield has answered 200 by then.
    return params.Depends(provide, scope="function")


ReadSession = Annotated[AsyncSession, _depends(read_session)]
"""A read session on a node that has everything this client wrote."""
WriteSession = Annotated[AsyncSession, _depends(write_session)]
"""A session on the primary; COMMIT precedes the response, and a failed COMMIT is a 500."""
RoutedSession = Annotated[AsyncSession, _depends(routed_session)]
"""A read session for GET, HEAD, OPTIONS, TRACE and QUERY, a write session for every other method."""
ReadConnection = Annotated[AsyncConnection, _depends(read_connection)]
"""SQLAlchemy Core without a session, on a node that has everything this client wrote."""
ReadAsyncpg = Annotated[asyncpg.Connection, _depends(read_asyncpg)]
"""asyncpg's own connection, for reads on such a node: `$1` placeholders, one round trip."""
WriteAsyncpg = Annotated[asyncpg.Connection, _depends(write_asyncpg)]
"""asyncpg's own connection on the primary, in a transaction whose COMMIT precedes the response."""
