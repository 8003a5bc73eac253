"""Behind nginx and HAProxy with their default buffers: a browser that writes two hundred times at once is served."""

import asyncio
import itertools
import os
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import free_port
from tests.kit.http import items
from tests.kit.numbers import enough
from tests.kit.routers import steady
from tests.kit.serving import served, workers

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{app}; }} }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server app 127.0.0.1:{app}
"""
PROXIES = {
    "nginx": (NGINX, ["-e", "{folder}/error.log", "-p", "{folder}", "-c", "{folder}/conf"]),
    "haproxy": (HAPROXY, ["-q", "-db", "-f", "{folder}/conf"]),
}
# By a browser that wrote before, and by one that did not.
VISITS = list(itertools.product(PROXIES, (False, True)))


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def behind(kind: str, app: int, folder: Path) -> AsyncIterator[str]:
    """The proxy in front of this port; its base URL."""
    program = shutil.which(kind, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed: apt-get install {'nginx-light' if kind == 'nginx' else kind}")
    configuration, arguments = PROXIES[kind]
    port = free_port()
    (folder / "conf").write_text(configuration.format(folder=folder, port=port, app=app))
    process = await asyncio.create_subprocess_exec(
        program, *(each.format(folder=folder) for each in arguments),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await wait_until(lambda: listens(port), what=kind)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def at_once(front: str) -> httpx.AsyncClient:
    """A browser that waits for two hundred answers at the same time."""
    return httpx.AsyncClient(base_url=front, timeout=30, limits=httpx.Limits(max_connections=200), verify=False)


@pytest.mark.parametrize("known", [False, True], ids=["a new client", "one that wrote before"])
@pytest.mark.parametrize("kind", PROXIES)
async def test_two_hundred_writes_at_once(cluster: Cluster, tmp_path: Path, kind: str, known: bool) -> None:
    """Then a read and a write: no 400 for too many cookies, no 502 for an answer that tidies them up."""
    db = steady(cluster)
    app = items(db)
    path = f"/items/{kind} {known}"
    async with (
        served(app) as url,
        behind(kind, int(url.rpartition(":")[2]), tmp_path) as front,
        at_once(front) as browser,
    ):
        if known:
            await browser.post(path)
        answers = await asyncio.gather(*(browser.post(path) for _ in range(200)))
        statuses = Counter(answer.status_code for answer in answers)
        for _ in range(5):
            read, written = await browser.get(path), await browser.post(path)
            statuses.update([read.status_code, written.status_code])
        assert statuses == {200: 210}
        assert read.json() == 204 + known
        assert len(browser.cookies) <= 40


async def test_several_processes_answer(cluster: Cluster, tmp_path: Path) -> None:
    """They share what one client may get, and do not know of each other's answers."""
    async with workers(cluster, enough(4, 8)) as url:
        for kind, known in enough(VISITS[1:3], VISITS):
            (folder := tmp_path / f"{kind}-{known}").mkdir()
            async with behind(kind, int(url.rpartition(":")[2]), folder) as front, at_once(front) as browser:
                if known:
                    await browser.post("/items/first")
                answers = await asyncio.gather(*(browser.post("/items/one") for _ in range(200)))
                assert Counter(answer.status_code for answer in answers) == {200: 200}
                assert len({answer.json()["pid"] for answer in answers}) > 1
                last = (await browser.post("/items/last")).json()
                assert (await browser.get(f"/items/{last['id']}")).status_code == 200
                assert len("; ".join(f"{name}={value}" for name, value in browser.cookies.items())) < 6000
