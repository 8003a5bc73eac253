"""An application behind a real server, and a client of it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from lagwise.testing import wait_until


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
    # Nothing here is encrypted, and to read the certificates takes longer than most requests.
    async with httpx.AsyncClient(base_url=url, timeout=20, verify=False) as http:
        yield http
