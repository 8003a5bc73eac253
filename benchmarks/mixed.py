"""What probes on demand cost under load: clients that do not think, nine reads to a write."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.probes import Probes
from benchmarks.store import Note
from benchmarks.tables import Table
from lagwise import Causality, Router
from lagwise._decide.view import Role
from lagwise.testing.cluster import Cluster

CLIENTS, WRITES = 16, 0.1
_WRITE_TRIPS, _PRIMARY_READ_TRIPS = 3, 1  # BEGIN, INSERT, COMMIT; SELECT
COLUMNS = ("reads", "writes", "on replicas", "stale", "of commits", "of reads", "both", "reads/s")


@dataclass
class Load:
    """Clients at work, and what they did."""

    db: Router
    numbers: Callable[[], int]
    reads: int = 0
    writes: int = 0
    on_replica: int = 0
    stale: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    async def client(self, until: float) -> None:
        token, mine = "", 0
        while time.perf_counter() < until:
            with Causality(token) as seen:
                if not mine or self.dice.random() < WRITES:
                    mine = self.numbers()
                    async with self.db.write.begin() as session:
                        session.add(Note(id=mine, value=mine))
                    self.writes += 1
                else:
                    async with self.db.read() as session:
                        self.stale += await session.get(Note, mine) is None
                        self.on_replica += session.info["lagwise.route"].on_replica
                    self.reads += 1
            token = str(seen.token)

    async def run(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self.client(until))


async def mixed(cluster: Cluster, numbers: Callable[[], int], seconds: float) -> Table:
    """Round trips for each read beyond those of the statements, and beyond the probes that are due anyway.

    Counted on the wire. On the primary they come from commits, which ask for their position; on the replicas from
    reads whose floor no replica was known to have reached.
    """
    title = f"Probes on demand for each read: {CLIENTS} clients that do not think, 90 % reads, no lag added"
    table = Table("probes", title, COLUMNS, drawn=("of commits", "of reads", "both"))
    async with Router(cluster.primary.url, [node.url for node in cluster.replicas]) as db:
        await Load(db, numbers).run(1.0)  # fills the pools
        probes, load, began = Probes(db), Load(db, numbers), time.perf_counter()
        for node in cluster.nodes.values():
            node.proxy.reset_counts()
        await load.run(seconds)
        took = time.perf_counter() - began
    on_primary = load.reads - load.on_replica
    commits = cluster.primary.proxy.round_trips - _WRITE_TRIPS * load.writes - _PRIMARY_READ_TRIPS * on_primary
    commits -= probes.due[Role.PRIMARY]
    reads = sum(node.proxy.round_trips for node in cluster.replicas) - load.on_replica - probes.due[Role.REPLICA]
    table.rows[f"{CLIENTS} clients"] = {
        "reads": load.reads,
        "writes": load.writes,
        "on replicas": load.on_replica / load.reads,
        "stale": load.stale,
        "of commits": commits / load.reads,
        "of reads": reads / load.reads,
        "both": (commits + reads) / load.reads,
        "reads/s": load.reads / took,
    }
    return table
