"""An application behind a real server, and a client of it."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import uvicorn

from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import free_port


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
async def workers(cluster: Cluster, count: int) -> AsyncIterator[str]:
    """The routed application in so many processes behind one port; its base URL, when two answer and know of all."""
    port = free_port()
    environment = {"PRIMARY": cluster.primary.direct_url, "REPLICAS": ",".join(n.direct_url for n in cluster.replicas)}
    command = "-m uvicorn tests.kit.application:from_environment --factory --log-level warning"
    server = await asyncio.create_subprocess_exec(
        sys.executable, *command.split(), "--workers", str(count), "--port", str(port),
        env={**os.environ, **environment},
    )  # fmt: skip
    url, seen = f"http://127.0.0.1:{port}", dict[int, int]()

    async def several_answer() -> bool:
        with suppress(httpx.TransportError):
            async with client(url) as http:
                seen.update([(await http.get("/process")).json()])
        return len(seen) > 1 and min(seen.values()) >= count

    try:
        await wait_until(several_answer, timeout=60, what="several workers")
        yield url
    finally:
        server.terminate()
        await server.wait()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """One client with a cookie jar of its own."""
    # Nothing here is encrypted, and to read the certificates takes longer than most requests.
    async with httpx.AsyncClient(base_url=url, timeout=20, verify=False) as http:
        yield http
