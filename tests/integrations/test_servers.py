"""Every server that runs several workers: the example application, unchanged, behind two processes."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from lagwise.testing import Cluster, wait_until
from tests.kit.serving import client

from .loading import environment
from .promise import KEPT, kept

ROOT = Path(__file__).parents[2]
APP = "examples.app:app"
# How each is told of two workers, an address, and the application.
SERVERS = {
    "uvicorn": ["--workers", "2", "--host", "127.0.0.1", "--port", "{port}", APP],
    "gunicorn": ["--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:{port}", APP],
    "hypercorn": ["--workers", "2", "--bind", "127.0.0.1:{port}", APP],
    "granian": ["--workers", "2", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP],
}
TABLE = "CREATE TABLE IF NOT EXISTS items (id serial PRIMARY KEY, text varchar NOT NULL, done boolean NOT NULL)"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def started(server: str, cluster: Cluster, log: Path) -> AsyncIterator[str]:
    """The server as a shell would start it, once each of its workers is ready; its base URL."""
    port = free_port()
    program = Path(sys.executable).with_name(server)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *(argument.format(port=port) for argument in SERVERS[server]),
            cwd=ROOT,
            env={**os.environ, **environment(cluster), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with client(url) as http:

            async def ready() -> bool:
                assert process.returncode is None, log.read_text()
                try:
                    return (await http.get("/health/ready", headers={"Connection": "close"})).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, timeout=90, what=f"{server} answers")
        yield url
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


@pytest.mark.parametrize("server", SERVERS)
async def test_a_cookie_goes_from_worker_to_worker(lagging: Cluster, tmp_path: Path, server: str) -> None:
    """A write by one worker is found by whichever reads, at once; reads are a replica's; a signal ends it."""
    if shutil.which(server, path=Path(sys.executable).parent) is None:
        pytest.skip(f"{server} is not installed: uv sync --group integrations")
    await lagging.primary.execute(TABLE)
    await lagging.caught_up()
    made: dict[str, str] = {}

    async def create(client: httpx.AsyncClient, name: str) -> httpx.Response:
        client.headers["Connection"] = "close"  # each request may meet another worker
        answer = await client.post("/items", json={"text": name})
        made[name] = f"/items/{answer.json()['id']}"
        return answer

    log = tmp_path / "log"
    async with started(server, lagging, log) as url, client(url) as one, client(url) as another:
        found = await kept(
            lagging,
            one,
            another,
            server,
            write=create,
            read=lambda http, name: http.get(made[name]),
            count=lambda answer: answer.status_code == 200,
        )
    assert found == KEPT
    assert "Traceback" not in log.read_text(), log.read_text()
