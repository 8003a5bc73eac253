"""The processes under test, and what happens to them that no cluster can do: strangers, computing, a stop."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import httpx

from lagwise import Policy
from lagwise.testing import Cluster, wait_until
from lagwise.testing.history import Version
from lagwise.testing.schedule import Outside, Step

from .application import prepare

KEYS = 8
STRANGE = {Version(1, 1_000_000_000 + number): (f"k{number}", f"stranger-{number}") for number in range(KEYS)}
HANGS = 15.0  # seconds; nothing that lagwise does on purpose takes half as long
STARTS = 120.0  # seconds, on a machine that does much else


@asynccontextmanager
async def another(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Another environment with the same names and password, and a register of its own."""
    stranger = Cluster(replicas=0)
    stranger._login = cluster._login
    async with stranger:
        await prepare(stranger)
        for version, (key, value) in STRANGE.items():
            said = version.timeline, version.number, key, value
            await stranger.primary.execute("INSERT INTO entry VALUES ($1, $2, $3, $4)", *said)
        await stranger.primary.execute("INSERT INTO register SELECT key, timeline, number, value FROM entry")
        yield stranger


def outside(cluster: Cluster, stranger: Cluster, workers: Mapping[str, "Worker"]) -> Outside:
    """The faults that are not the cluster's own."""

    @asynccontextmanager
    async def strange(step: Step) -> AsyncIterator[None]:
        node = cluster[step.node]
        own, node.proxy.target = node.proxy.target, stranger.primary.server.address
        node.proxy.reset()
        try:
            yield
        finally:
            node.proxy.target = own
            node.proxy.reset()

    @asynccontextmanager
    async def busy(step: Step) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            base_url=workers[step.node].url, timeout=2 * HANGS, verify=False, trust_env=False
        ) as http:
            computing = asyncio.create_task(http.post(f"/busy/{step.lasts}"))
            yield
            await asyncio.wait({computing})

    @asynccontextmanager
    async def stopped(step: Step) -> AsyncIterator[None]:
        process = workers[step.node].process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    return {"stranger": strange, "busy": busy, "stop": stopped}


@dataclass(frozen=True)
class Worker:
    """A process that serves the application."""

    url: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def worker(cluster: Cluster, policy: Policy, log: IO[str]) -> AsyncIterator[Worker]:
    """A process that serves the application on the cluster."""
    nodes = " ".join(f"{name}={node.url}" for name, node in cluster.nodes.items())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.history.application",
        env={**os.environ, "NODES": nodes, "POLICY": repr(policy)},
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=log.fileno(),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(await process.stdout.readline())}"
        await wait_until(partial(serves, url, "primary"), timeout=STARTS, what=f"{url} serves", interval=0.5)
        yield Worker(url, process)
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def serves(url: str, what: str) -> bool:
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=url, timeout=5, verify=False, trust_env=False) as http:
            if what == "primary":
                return (await http.get("/health/ready?for=writes")).status_code == 200
            nodes = (await http.get("/health/nodes")).json()
            return "in-rotation" in str(nodes) and str(nodes).count("in-rotation") >= 2
    return False
