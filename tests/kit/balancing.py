"""The example application as processes of its own, and a load balancer before them with the configuration shown."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from lagwise.testing import Cluster, Proxy, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SECRET = "a secret for tests"
# Seconds: HAProxy notices after two checks 100 ms apart, or one that times out after a second.
GRACE = 1.5


def program(name: str) -> str:
    """The path of a load balancer, or a skip."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {'nginx-light' if name == 'nginx' else name}")
    return found


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Instance:
    """One process of `examples.app`, which can be ended and started again at its address."""

    environment: Mapping[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    async def start(self, grace: float = GRACE) -> None:
        """Start it, and wait until it is ready for writes: again if it gives up, as its supervisor would."""
        async with asyncio.timeout(90):
            while not await self._started(grace):
                pass

    async def _started(self, grace: float) -> bool:
        with self.log.open("ab") as output:
            self.process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "uvicorn", "examples.app:app", "--port", str(self.port),
                "--timeout-keep-alive", "30", "--no-access-log",
                cwd=ROOT, env={**os.environ, **self.environment, "DRAIN_GRACE": str(grace)},
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

        async def ready() -> bool:
            return process.returncode is not None or await self.status("/health/ready?for=writes") == 200

        await wait_until(ready, timeout=60, interval=0.1, what="the application is ready")
        return process.returncode is None

    async def status(self, path: str) -> int:
        """The status of a GET past the load balancer; 0 where no connection can be made."""
        async with httpx.AsyncClient(base_url=f"http://{self.address}", timeout=10, verify=False) as http:
            try:
                return (await http.get(path)).status_code
            except httpx.TransportError:
                return 0

    def terminate(self) -> None:
        """Send SIGTERM."""
        assert self.process is not None
        self.process.terminate()

    async def ended(self) -> int:
        """Wait until it has ended; its exit status."""
        assert self.process is not None
        async with asyncio.timeout(30):
            return await self.process.wait()

    async def kill(self) -> None:
        """End it whatever it does."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()


Both = tuple[list[Instance], Proxy]


@asynccontextmanager
async def instances(cluster: Cluster, folder: Path, grace: float = GRACE, count: int = 2) -> AsyncIterator[Both]:
    """Processes; between the first one and its primary, and no other, is the proxy."""
    async with AsyncExitStack() as stack:
        primary, *replicas = cluster.nodes.values()
        way = await stack.enter_async_context(Proxy(primary.server.address))
        urls = [primary.url.replace(f":{primary.proxy.address.port}/", f":{way.address.port}/"), primary.url]
        assert urls[0] != urls[1]
        common = {
            "LAGWISE_REPLICAS": ",".join(node.url for node in replicas),
            "LAGWISE_SECRET": SECRET,
            "PYTHONPATH": str(ROOT),
        }
        both = [
            Instance({**common, "LAGWISE_PRIMARY": url}, folder / f"app-{number}.log")
            for number, url in enumerate(urls[:count], 1)
        ]
        for one in both:  # one after the other: both create the table, which only one of them can do at a time
            stack.push_async_callback(one.kill)
            await one.start(grace)
        yield both, way


class HAProxy:
    """HAProxy with `examples/haproxy/haproxy.cfg`, checking ten times a second and telling its state."""

    def __init__(self, folder: Path, addresses: list[str], changed: Mapping[str, str] | None = None) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._told = folder / "stats"
        self._file = folder / "haproxy.cfg"
        self._environment = {"BIND": f"127.0.0.1:{port}", "APP_1": addresses[0], "APP_2": addresses[1]}
        text = (EXAMPLES / "haproxy" / "haproxy.cfg").read_text()
        changes = {"inter 1s": "inter 100ms", "\nglobal\n": f"\nglobal\n    stats socket {self._told} mode 600\n"}
        for old, new in {**changes, **(changed or {})}.items():
            assert old in text, old
            text = text.replace(old, new)
        self._file.write_text(text)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["HAProxy"]:
        """The process."""
        process = await asyncio.create_subprocess_exec(
            program("haproxy"), "-q", "-db", "-f", str(self._file), env={**os.environ, **self._environment},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await self.all_up()
            yield self
        finally:
            process.terminate()
            await process.wait()

    async def table(self) -> dict[str, dict[str, str]]:
        """What HAProxy says of each server, by backend and name; empty while it does not answer."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(self._told)
            writer.write(b"show stat\n")
            text = (await reader.read()).decode().removeprefix("# ")
            writer.close()
            head, *lines = [line.split(",") for line in text.splitlines() if line]
            rows = [dict(zip(head, line, strict=False)) for line in lines]
            return {f"{r['pxname']}/{r['svname']}": r for r in rows if r["svname"].startswith("app-")}
        return {}

    async def up(self) -> set[str]:
        """The servers that get requests: also those of which one check has failed, `UP 1/2`."""
        return {name for name, row in (await self.table()).items() if row["status"].startswith("UP")}

    async def all_up(self) -> None:
        """Wait until both processes get reads and writes."""

        async def up() -> bool:
            return len(await self.up()) == 4

        await wait_until(up, timeout=30, what="HAProxy sends requests to both processes")

    async def served(self) -> dict[str, int]:
        """How many requests each server got."""
        return {name: int(row["stot"]) for name, row in (await self.table()).items()}


class Nginx:
    """nginx with `examples/nginx/nginx.conf`, telling which process answered."""

    def __init__(self, folder: Path, addresses: list[str]) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._folder = folder
        self._file = folder / "nginx.conf"
        self._addresses = addresses
        self._process: asyncio.subprocess.Process | None = None
        text = (EXAMPLES / "nginx" / "nginx.conf").read_text()
        places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        changes = {
            # Its workers are whoever runs the tests: only they may enter the folder.
            "events {": f"{'user root;' if os.geteuid() == 0 else ''} daemon off; worker_processes 1;"
            f"pid {folder}/pid; error_log {folder}/error.log;\nevents {{",
            "http {": f"http {{\n    access_log off; client_body_temp_path {folder}/body; {places}\n"
            "    add_header X-Served-By $upstream_addr;",
            "listen 127.0.0.1:8080": f"listen 127.0.0.1:{port}",
            "127.0.0.1:8001": addresses[0],
            "127.0.0.1:8002": addresses[1],
        }
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        self._text = text
        self._file.write_text(text)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Nginx"]:
        """The process."""
        self._process = process = await asyncio.create_subprocess_exec(
            program("nginx"), "-e", str(self._folder / "error.log"), "-p", str(self._folder), "-c", str(self._file),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await self._serves({*self._addresses})
            yield self
        finally:
            process.terminate()
            await process.wait()

    async def mark_down(self, *addresses: str) -> None:
        """Mark these processes `down`, and no others; wait until nginx has read it."""
        assert self._process is not None
        text = self._text
        for address in addresses:
            text = text.replace(f"server {address} ", f"server {address} down ")
        assert (text == self._text) == (not addresses)
        self._file.write_text(text)
        self._process.send_signal(signal.SIGHUP)
        await self._serves({*self._addresses} - {*addresses})

    async def _serves(self, addresses: set[str]) -> None:
        async def found() -> bool:
            """Whether these, and no others, answer ten requests of a new client."""
            by = set()
            async with httpx.AsyncClient(base_url=self.url, timeout=10, verify=False) as http:
                with contextlib.suppress(httpx.TransportError):
                    for _ in range(10):
                        by.add((await http.get("/items")).headers.get("X-Served-By"))
            return by == addresses

        await wait_until(found, timeout=30, what=f"nginx asks {sorted(addresses)}")
