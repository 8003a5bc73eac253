"""What the demo plays on: a cluster whose replicas lag, and the application served on a loopback port."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from lagwise import Router
from lagwise.cli.demo.application import NaiveSplit, application
from lagwise.testing import Cluster, ClusterError, wait_until

# Seconds. The first lags as a busy replica does; the second as one does during a long transaction or a vacuum.
DELAYS = {"replica-1": 0.2, "replica-2": 2.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """The cluster and the served application, as the phases need them."""

    cluster: Cluster
    db: Router
    url: str


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A cluster and the application, up; both gone at the end.

    Raises:
        ClusterError: one of them did not start.
    """
    async with Cluster(replicas=len(DELAYS)) as cluster:
        # Past the proxies that tests break the network with: they would be in both latencies.
        primary, replicas = cluster.primary.direct_url, {node.name: node.direct_url for node in cluster.replicas}
        db = Router(primary, replicas)
        app = application(db, NaiveSplit(primary, replicas), secret=secrets.token_hex())
        async with _served(app) as url:
            await cluster.caught_up()  # the tables are there before the delays are
            for name, delay in DELAYS.items():
                await cluster.set_apply_delay(name, delay)
            yield Stage(cluster, db, url)


@asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[str]:
    """Serve on a free loopback port, in this loop; the URL, without a slash at the end."""
    # Only where the socket names its protocol does asyncio turn Nagle's algorithm off (base_events._set_nodelay).
    # With it, an answer sent in two parts waits 40 ms for the acknowledgement of the first.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, lifespan="on", log_config=None, log_level="error", access_log=False, timeout_graceful_shutdown=1
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([sock]), name="lagwise-demo-server")
        try:
            await wait_until(lambda: server.started or serving.done(), timeout=30, what="the application is up")
            if not server.started:
                message = "The demo's application did not start; its log says why."
                raise ClusterError(message)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await asyncio.wait({serving})


class _Server(uvicorn.Server):
    """A server that leaves the signals to the command that started it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
