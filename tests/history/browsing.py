"""A browser before the register: over HTTP, where cookies and the order of COMMIT and answer matter."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan
from lagwise.testing import Cluster, wait_until
from lagwise.testing.history import Operation, Recorder, Version

from .application import SECRET, get, put


class Gated:
    """An application behind a gate: answers whose path is held wait there; `started` says which have begun."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.held: dict[str, asyncio.Event] = {}
        self.started: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        path = scope.get("path", "")

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.started.add(path)
                if path in self.held:
                    await self.held[path].wait()
            await send(message)

        await self.app(scope, receive, sending)


def application(db: Router, writing: Any, **middleware: Any) -> FastAPI:
    """The register whose writes have a session by `writing`, with the middleware inside."""
    app = unwrapped(db, writing)
    app.add_middleware(CausalityMiddleware, secret=SECRET, **middleware)
    return app


def unwrapped(db: Router, writing: Any) -> FastAPI:
    """The register, for a middleware around it."""
    app = FastAPI(lifespan=lifespan(db))

    @app.put("/{key}/{value}")
    async def write(key: str, value: str, session: writing) -> dict[str, Any]:
        return await put(session, key, value)

    @app.get("/{key}")
    async def read(key: str, session: ReadSession) -> dict[str, Any]:
        return await get(session, key)

    return app


class Browser:
    """One user with a cookie jar, recorded."""

    def __init__(self, url: str) -> None:
        self.recorder = Recorder()
        self.http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def ask(self, path: str) -> Operation:
        """PUT /key/value or GET /key."""
        start, (key, _, value) = self.recorder.now(), path.partition("/")
        answer = (await self.http.request("PUT" if value else "GET", f"/{path}")).raise_for_status().json()
        done = Operation(
            client="ann",
            kind="write" if value else "read",
            key=key,
            value=answer["value"],
            version=Version(answer["timeline"], answer["number"]) if answer["number"] is not None else None,
            start=start,
            end=self.recorder.now(),
            node=answer["node"],
        )
        self.recorder.operations.append(done)
        return done


async def browsing(app: Any, scenario: Callable[[Browser], Awaitable[None]]) -> Recorder:
    """Run the scenario against the application behind uvicorn."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started or task.done(), what="uvicorn")
        browser = Browser(f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            async with browser.http:
                await scenario(browser)
        finally:
            server.should_exit = True
            await task
    return browser.recorder


def unopened(cluster: Cluster) -> Router:
    """A Router for the lifespan to open."""
    return Router(cluster.primary.url, [node.url for node in cluster.replicas])
