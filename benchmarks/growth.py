"""What grows with what: decisions with replicas, memory with clients, monitoring with nodes."""

import asyncio
import time

from benchmarks.crowd import crowds
from benchmarks.decision import decisions
from benchmarks.probes import Probes
from benchmarks.tables import Table
from lagwise import Router
from lagwise.testing.cluster import Cluster

NODES = (1, 3, 9, 27)


async def run(quick: bool) -> list[Table]:
    """The tables of decisions, of clients gone, open and waiting, and of the monitor."""
    tables = [decisions(quick=quick)]
    async with Cluster(replicas=2) as cluster:
        tables += await crowds(cluster, quick=quick)
        tables.append(await monitoring(cluster, NODES[:2] if quick else NODES, seconds=1.0 if quick else 5.0))
    return tables


async def monitoring(cluster: Cluster, sizes: tuple[int, ...], seconds: float) -> Table:
    """CPU time of a Router without sessions, by the number of its nodes."""
    table = Table(
        "monitoring",
        "The monitor of an idle Router with the default policy",
        ("probes/s", "per node", "CPU ms/s", "ms/s per node"),
        notes=("beyond 3 nodes the two replicas go by several names; CPU of this process, not of the servers",),
        drawn=("ms/s per node",),
    )
    idle = await _cpu(seconds)
    for size in sizes:
        urls = [cluster.replicas[number % 2].direct_url for number in range(size - 1)]
        async with Router(cluster.primary.direct_url, urls) as db:
            probes = Probes(db)
            spent = max(0.0, await _cpu(seconds) - idle)
        read = (probes.due + probes.asked).total() / seconds
        table.rows[f"{size} node{'s' * (size > 1)}"] = {
            "probes/s": read,
            "per node": read / size,
            "CPU ms/s": spent * 1e3,
            "ms/s per node": spent * 1e3 / size,
        }
    return table


async def _cpu(seconds: float) -> float:
    """CPU seconds per second that this process spends on whatever runs in it."""
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - began)
