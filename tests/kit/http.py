"""An application without a server around it: what a server does is done here, so that tests can watch."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster

SECRET = "for tests only"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Wrap = Callable[[ASGIApp], ASGIApp]

READ_ONLY = text("SELECT current_setting('transaction_read_only') = 'on'")
IN_RECOVERY = text("SELECT pg_is_in_recovery()")


def unwrapped(app: ASGIApp) -> ASGIApp:
    """Nothing around the application object."""
    return app


@asynccontextmanager
async def opened(app: FastAPI, wrap: Wrap = unwrapped) -> AsyncIterator[ASGIApp]:
    """The application between its start-up and its shutdown, with lifespan state handed on as servers do."""
    async with app.router.lifespan_context(app) as state:

        async def stated(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state or {})
            await wrap(app)(scope, receive, send)

        yield stated


def http(app: ASGIApp, *, raising: bool = False) -> httpx.AsyncClient:
    """A client with a cookie jar of its own; unhandled exceptions are a 500, or raised here."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=raising), base_url="http://test")


@asynccontextmanager
async def serving(app: FastAPI, wrap: Wrap = unwrapped) -> AsyncIterator[httpx.AsyncClient]:
    """An application that runs, and a client of it."""
    async with opened(app, wrap) as running, http(running) as client:
        yield client


def application(db: Router, **options: Any) -> FastAPI:
    """An empty application around one Router, with the middleware."""
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=SECRET, **options)
    return app


def with_items(app: FastAPI | APIRouter) -> None:
    """One path to write an item and one to count the items of that name."""

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> None:
        await insert(session, name)

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)


def items(db: Router, **options: Any) -> FastAPI:
    """An application with the middleware that writes and counts items."""
    app = application(db, **options)
    with_items(app)
    return app


async def names(session: AsyncSession, name: str) -> int:
    """How many items of this name the session sees."""
    return await session.scalar(text("SELECT count(*) FROM item WHERE name = :name"), {"name": name}) or 0


async def insert(session: AsyncSession, name: str) -> None:
    """Add an item."""
    await session.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": name})


async def committed(cluster: Cluster, name: str) -> int:
    """How many items of this name the primary shows to everybody."""
    count: int = await cluster.primary.fetchval("SELECT count(*) FROM item WHERE name = $1", name)
    return count


def cookies_set(response: httpx.Response) -> list[str]:
    """The names of the cookies that a response sets."""
    return [header.partition("=")[0] for header in response.headers.get_list("set-cookie")]


def cookie_of(response: httpx.Response) -> "Morsel[str] | None":
    """The token cookie that a response sets."""
    jar: SimpleCookie = SimpleCookie()
    for header in response.headers.get_list("set-cookie"):
        jar.load(header)
    return jar.get("lagwise")


def reason_of(response: httpx.Response) -> str:
    """Why the request went where it went."""
    return str(response.headers["lagwise-route"]).partition("reason=")[2]


class Socket:
    """The client's end of a WebSocket."""

    def __init__(self, app: ASGIApp, path: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._scope: Scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "scheme": "ws", "path": path, "raw_path": path.encode(),
            "root_path": "", "query_string": b"", "headers": list(headers), "client": None, "server": None,
            "subprotocols": [], "extensions": {},
        }  # fmt: skip
        self._app = app

    async def __aenter__(self) -> "Socket":
        self._task = asyncio.ensure_future(self._app(self._scope, self._to_app.get, self._from_app.put))
        await self._to_app.put({"type": "websocket.connect"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._to_app.put({"type": "websocket.disconnect", "code": 1000})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self._task

    async def heard(self) -> Message:
        """The application's next message."""
        async with asyncio.timeout(10):
            getting = asyncio.ensure_future(self._from_app.get())
            done, _ = await asyncio.wait({getting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if getting not in done:
                getting.cancel()
                await self._task  # raises what the application raised
                raise AssertionError("the application ended without another message")
            return getting.result()

    async def says(self, words: str) -> str:
        """Send a message and return the answer."""
        await self._to_app.put({"type": "websocket.receive", "text": words})
        return str((await self.heard())["text"])


class Asking:
    """Asks the primary, when the response starts, whether the item is there for everybody."""

    def __init__(self, app: ASGIApp, cluster: Cluster, name: str) -> None:
        self.app, self.cluster, self.name = app, cluster, name
        self.seen: list[tuple[int, int]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def asking(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.seen.append((message["status"], await committed(self.cluster, self.name)))
            await send(message)

        await self.app(scope, receive, asking)


def carries_nothing(response: Any) -> bool:
    """Whether a response has neither cookie nor header, and may be cached as the application sees fit."""
    return not {"set-cookie", "lagwise-token", "cache-control"} & set(response.headers)
