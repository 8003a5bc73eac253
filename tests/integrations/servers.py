"""Every server that runs several workers, started as a shell would start it."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import free_port
from tests.kit.serving import client

from .loading import environment

ROOT = Path(__file__).parents[2]
# How each is told of its workers, an address, and the application.
SERVERS = {
    "uvicorn": ["--workers", "{workers}", "--host", "127.0.0.1", "--port", "{port}", "{app}"],
    "gunicorn": [
        "--workers",
        "{workers}",
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        "--bind",
        "127.0.0.1:{port}",
        "{app}",
    ],
    "hypercorn": ["--workers", "{workers}", "--bind", "127.0.0.1:{port}", "{app}"],
    "granian": ["--workers", "{workers}", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "{app}"],
}
TABLE = "CREATE TABLE IF NOT EXISTS items (id serial PRIMARY KEY, text varchar NOT NULL, done boolean NOT NULL)"


def installed(server: str) -> None:
    """Skip where this server is not installed."""
    if shutil.which(server, path=Path(sys.executable).parent) is None:
        pytest.skip(f"{server} is not installed: uv sync --group integrations")


@asynccontextmanager
async def started(
    server: str,
    cluster: Cluster,
    log: Path,
    *,
    app: str = "examples.app:app",
    workers: int = 2,
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The server, once one of its workers is ready; its base URL, and its first process. SIGTERM ends it.

    It is started again if it gives up before, as its supervisor would do.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [argument.format(app=app, port=port, workers=workers) for argument in SERVERS[server]]
    environ = {**os.environ, **environment(cluster), "PYTHONPATH": str(ROOT), **(more or {})}
    process = await _start(server, arguments, environ, log)
    try:
        async with client(url) as http:

            async def ready() -> bool:
                nonlocal process
                if process.returncode is not None:  # nodes were silent while the machine was busy
                    process = await _start(server, arguments, environ, log)
                try:
                    return (await http.get("/health/ready", headers={"Connection": "close"})).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, timeout=90, what=f"{server} answers")
        log.write_bytes(b"")  # of the server that is used
        yield url, process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise


async def _start(
    server: str, arguments: list[str], environ: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name(server),
            *arguments,
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
