"""A real cluster, a Router on it, and the application served over HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import Policy, Router
from lagwise.testing import Cluster, wait_until

from .application import Base

Serve = Callable[[Any], AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
async def running() -> AsyncIterator[Cluster]:
    """A primary and two replicas with the tables, for the whole run."""
    async with Cluster(replicas=2) as cluster:
        engine = create_async_engine(cluster.primary.direct_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()
        await cluster.caught_up()
        yield cluster


@pytest.fixture
async def cluster(running: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, healthy; mended afterwards."""
    yield running
    await running.heal()
    for node in running.nodes.values():
        node.proxy.latency = 0.0
        await running.start(node)
    for replica in running.replicas:
        await running.set_apply_delay(replica, 0)
        await running.resume_replay(replica)
    await running.caught_up()


def router(cluster: Cluster, policy: Policy | None = None, **options: Any) -> Router:
    """A Router on the whole cluster, by the names the nodes were born with."""
    primary, *replicas = cluster.nodes.values()
    return Router(primary.url, {node.name: node.url for node in replicas}, policy=policy, **options)


async def in_rotation(db: Router, *names: str) -> None:
    """Wait until exactly these replicas are in rotation, and fresh."""

    def so() -> bool:
        if db.policy.probe_interval > 1:  # the one reading there is may have been taken a moment too early
            db._running().hurry(names)
        now = asyncio.get_running_loop().time()
        return {node.name for node in db.view.rotation if node.staleness(now) < db.policy.max_lag} == set(names)

    await wait_until(so, what=f"{names} in rotation")


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Router]:
    """An open Router on the whole cluster, both replicas in rotation."""
    async with router(cluster) as db:
        await in_rotation(db, "replica-1", "replica-2")
        yield db


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The application behind uvicorn on a loopback port, in this process; its base URL."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        # A client that has paused finds its connection open: one closed at that moment would look like a fault.
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_keep_alive=600))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await wait_until(lambda: server.started or task.done(), what="uvicorn")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """One client with a cookie jar of its own."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield http
