"""The applications of examples/patterns as their tests use them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

import httpx
from fastapi import FastAPI

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware
from lagwise.testing import Cluster
from tests.kit.http import ASGIApp, Message, Receive, Scope, Send, Wrap, http, opened, unwrapped
from tests.kit.routers import in_rotation

LAG = 0.2  # seconds by which each replica shows a commit late


def address() -> str:
    """An address that no other test uses."""
    return f"{uuid4().hex}@example.org"


@asynccontextmanager
async def running(
    app: CausalityMiddleware, *replicas: str, wrap: Wrap = unwrapped
) -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """The application with these replicas in rotation, else both; each call is a client with its own cookie jar."""
    inner = app.app
    assert isinstance(inner, FastAPI)
    async with opened(inner, lambda _: wrap(app)) as served:
        db: Router = inner.state.lagwise
        await in_rotation(db, *(replicas or ("replica-1", "replica-2")))
        yield partial(http, served)


def node_of(response: httpx.Response) -> str:
    """Which node answered, as the response says."""
    return str(response.headers["lagwise-route"]).partition(";")[0]


def by_replica(response: httpx.Response) -> bool:
    """Whether a replica answered."""
    return node_of(response).startswith("replica")


def users_when_answered(cluster: Cluster, email: str, seen: list[tuple[int, int]]) -> Wrap:
    """Ask the primary, as each response starts, how many users have this address, for everybody."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def asking(scope: Scope, receive: Receive, send: Send) -> None:
            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    count = await cluster.primary.fetchval("SELECT count(*) FROM users WHERE email = $1", email)
                    seen.append((message["status"], count))
                await send(message)

            await app(scope, receive, sent)

        return asking

    return wrap
