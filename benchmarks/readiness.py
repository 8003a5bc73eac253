"""How long a load balancer waits for `/ready`, at a steady rate, while pools are exhausted and a node is silent."""

from typing import Any

from benchmarks.peer import Peer, module
from benchmarks.progress import progress
from benchmarks.tables import Table
from lagwise.testing import Cluster, wait_until

PER_SECOND, CONNECTIONS = 500, 8
SILENT = "replica-1"
COLUMNS = ("per s", "p50 ms", "p99 ms", "max ms", "status", "CPU us")
PATHS = {"/live": "/health/live", "/ready": "/health/ready", "/ready?for=writes": "/health/ready?for=writes"}
NOTES = (
    "From the moment when a request was due, so that what waits behind a late answer counts. CPU us: of the server's",
    "process, for one request, with whatever else it did meanwhile. status: of all answers. /live: what HTTP costs.",
    "exhausted: all connections are taken, and twenty sessions wait for one at any time, for half a second each.",
    "silent: replica-1's packets are swallowed, and its sockets stay open. After gc.freeze().",
)


async def asked(load: Peer, server: Peer, path: str, seconds: float) -> dict[str, float]:
    """One row."""
    before = await server.ask()
    found: dict[str, float] = await load.ask(
        port=before["port"], path=path, per_second=PER_SECOND, seconds=seconds, connections=CONNECTIONS
    )
    after = await server.ask()
    return {**found, "CPU us": (after["cpu"] - before["cpu"]) / (PER_SECOND * seconds) * 1e6}


async def run(quick: bool) -> list[Table]:
    """All is well; then at the worst time; then while it drains."""
    seconds = 3.0 if quick else 20.0
    rows: dict[str, dict[str, float]] = {}
    async with Cluster(replicas=2) as cluster, module("probed") as server, module("pace") as load:
        replicas = {node.name: node.url for node in cluster.replicas}
        await server.ask(primary=cluster.primary.url, replicas=replicas)

        async def measure(when: str, **paths: str) -> None:
            for name, path in paths.items():
                progress(f"readiness: {name}, {when}")
                await asked(load, server, path, 0.5)
                rows[f"{name}, {when}"] = await asked(load, server, path, seconds)

        await measure("all is well", **PATHS)
        await server.ask(exhaust=True)
        await cluster.black_hole(SILENT)

        async def worst() -> bool:
            state: dict[str, Any] = await server.ask()
            return bool(state["timeouts"]) and state["rotation"] == 1

        await wait_until(worst, timeout=30, what="sessions time out, and the silent replica has left the rotation")
        await measure("exhausted, silent", **PATHS)
        await server.ask(drain=True)
        await measure("the same, draining", **{"/ready": PATHS["/ready"]})
    title = (
        f"readiness: {PER_SECOND} health checks per second over {CONNECTIONS} connections, {seconds:g} s for each row"
    )
    return [Table("readiness", title, COLUMNS, rows, NOTES, ("p50 ms", "p99 ms"))]
