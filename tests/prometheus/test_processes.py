"""Several worker processes: prometheus-client's multiprocess mode adds up what each of them has counted."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import free_port
from tests.kit.metrics import Scraped, scrape
from tests.kit.serving import client

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def two_workers(cluster: Cluster, files: Path) -> AsyncIterator[str]:
    """The application behind uvicorn's two worker processes, which write to these files; its base URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "tests.prometheus.workers:app", "--workers", "2", "--port", str(port)),
        cwd=ROOT,
        env={
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(files),
            "PRIMARY": cluster.primary.url,
            "REPLICAS": ",".join(replica.url for replica in cluster.replicas),
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with client(url) as http:

            async def ready() -> bool:
                assert process.returncode is None
                try:
                    return (await http.get("/health/ready", headers={"Connection": "close"})).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, timeout=60, what="uvicorn answers")
        yield url
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


async def visited(url: str) -> Counter[int]:
    """Write and read as new clients, each over a connection of its own, until both workers have served ten."""
    served: Counter[int] = Counter()

    async def enough() -> bool:
        async with client(url) as http:
            made = await http.post("/items/counted by workers", headers={"Connection": "close"})
            served[made.json()["pid"]] += 1
            shown = await http.get(f"/items/{made.json()['id']}", headers={"Connection": "close"})
            served[shown.json()["pid"]] += 1
        return len(served) == 2 and min(served.values()) >= 10

    await wait_until(enough, timeout=60, interval=0.0, what="both workers have served")
    return served


async def metrics(url: str) -> Scraped:
    """What either worker answers for both."""
    async with client(url) as http:
        return Scraped((await http.get("/metrics/", headers={"Connection": "close"})).text)


async def test_what_two_workers_count_is_added_up(cluster: Cluster, tmp_path: Path) -> None:
    """Counts at once, whichever worker is scraped; gauges of pools summed, of nodes the worst; and a worker's death.

    A worker that is killed with SIGKILL has lost no count, and its gauges go when the server says that it is dead.
    """
    async with two_workers(cluster, tmp_path) as url:
        served = await visited(url)
        now = await metrics(url)
        requests = served.total()
        assert now.total("lagwise_routes_total") == requests
        assert now.by("lagwise_routes_total", "role") == {"read": requests / 2, "write": requests / 2}
        assert now.total("lagwise_positions_total") == now.value("lagwise_tokens_issued_total") == requests / 2
        assert now.value("lagwise_tokens_brought_total") == requests / 2
        assert now.value("lagwise_waits_total", outcome="refused") == 0

        await cluster.pause_replay("replica-1")
        async with client(url) as http:
            await http.post("/items/that lags", headers={"Connection": "close"})
            made = requests + 1

        async def written() -> bool:
            """Whether the timers of both workers have written their gauges, and one after the lag was seen."""
            now = await metrics(url)
            lag = now.by("lagwise_node_lag_bytes", "node").get("replica-1", 0)
            return lag > 0 and now.value("lagwise_pool_limit", node="primary", pool="writing") == 40

        await wait_until(written, what="both workers have written, and one sees the lag")
        now = await metrics(url)
        assert now.by("lagwise_node_in_rotation", "node") == {"replica-1": 1, "replica-2": 1}
        assert now.by("lagwise_node_primary", "node") == {"primary": 1}
        assert now.value("lagwise_open") == 1

        victim = min(served)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
        os.kill(victim, signal.SIGKILL)
        mark_process_dead(victim, str(tmp_path))  # type: ignore[no-untyped-call]
        left = scrape(registry)
        assert left.total("lagwise_routes_total") == made
        assert left.value("lagwise_pool_limit", node="primary", pool="writing") == 20
