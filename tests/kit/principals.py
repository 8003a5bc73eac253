"""Clients without cookies that act for a principal, and stores that have been there for long."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, lifespan
from lagwise.store import MemoryStore, RedisStore
from tests.kit.http import SECRET, ASGIApp, Scope, http, opened, with_items

AnyStore = MemoryStore | RedisStore


def bearer(scope: Scope) -> str | None:
    """The principal that a request names in its Authorization header."""
    return next((value.decode() for name, value in scope["headers"] if name == b"authorization"), None)


def aged(store: MemoryStore) -> MemoryStore:
    """A store that has been there for an hour: what it does not know, was not written."""
    store._process, store._since = os.getpid(), time.monotonic() - 3600
    return store


class Device:
    """A client of one principal that keeps no cookie; None is a stranger."""

    def __init__(self, app: ASGIApp, user: str | None) -> None:
        self._app = app
        self._headers = {} if user is None else {"authorization": user}

    async def get(self, path: str) -> httpx.Response:
        async with http(self._app) as client:
            return await client.get(path, headers=self._headers)

    async def post(self, path: str) -> httpx.Response:
        async with http(self._app) as client:
            return await client.post(path, headers=self._headers)


def shop(db: Router) -> FastAPI:
    """An application that writes and counts items, without the middleware."""
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)
    return app


@asynccontextmanager
async def processes(
    routers: list[Router],
    store: Callable[[], AnyStore],
    application: Callable[[Router], FastAPI] = shop,
    **options: Any,
) -> AsyncIterator[list[ASGIApp]]:
    """One application for each Router, each behind the middleware with a store of its own; as processes are."""
    settings: dict[str, Any] = {"key": bearer, "route_header": True} | options
    async with AsyncExitStack() as stack:
        running: list[ASGIApp] = []
        for db in routers:
            its = store()
            stack.push_async_callback(its.aclose)
            inner = await stack.enter_async_context(opened(application(db)))
            running.append(CausalityMiddleware(inner, secret=SECRET, store=its, **settings))
        yield running
