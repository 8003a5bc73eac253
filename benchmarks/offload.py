"""Read offload under causality: how many reads of a client's own write do replicas serve, and how many are stale?

A client writes a row, thinks, and reads it back. Three contestants read the same row at the same moment, of the same
cluster: lagwise with the client's token, and the usual recipe twice, with a fixed window of 2 s and of 5 s. In the same
turn of the event loop the oracle asks the replicas whether one of them has replayed the token already.

Pairs of a write and its reads begin at random moments, so many a second, each a client of its own. The lag is
`recovery_min_apply_delay` on both replicas; 1 ms stands for none added, which is what loopback does.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.mixed import mixed
from benchmarks.oracle import Oracle, oracle
from benchmarks.probes import Probes
from benchmarks.store import Note, Windows, created, windows
from benchmarks.tables import Table
from lagwise import Causality, Router
from lagwise._decide.view import Role
from lagwise.testing.cluster import Cluster

RATE = 60.0
WINDOWS = (2.0, 5.0)
LAGS, THINKS = (0.0, 0.01, 0.1, 1.0), (0.0, 0.005, 0.02, 0.05, 0.15, 0.5, 1.0)
READS = ("oracle", "lagwise", "ratio", "missed", "stale", "median ms", "p99 ms", "probes/read", "pairs")
RECIPES = ("oracle", "lagwise", "stale", *(name for w in WINDOWS for name in (f"{w:g} s", f"{w:g} s, stale")))
NOTE = "missed: reads on the primary that the oracle would have sent to a replica. ms: until a read's node is chosen."


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the tables: seconds of lag, seconds of thinking (at most, when it is uniform from 0), pairs."""

    lag: float
    think: float
    pairs: int
    uniform: bool = False

    def __str__(self) -> str:
        think = f"{'0-' if self.uniform else ''}{self.think * 1000:g}"
        return f"lag {max(self.lag * 1000, 1):g} ms, think {think} ms"

    def thinking(self) -> float:
        return random.uniform(0, self.think) if self.uniform else self.think


@dataclass(frozen=True, slots=True)
class Read:
    """Whether a replica served it, whether it missed the client's write, seconds until its node was chosen."""

    on_replica: bool
    stale: bool
    chosen_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What became of one write's reads: whether a replica could have served, and what each contestant did."""

    possible: bool
    lagwise: Read
    windows: tuple[Read, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """The contestants, over one cluster."""

    cluster: Cluster
    db: Router
    oracle: Oracle
    windows: Windows
    probes: Probes
    numbers: Callable[[], int]

    async def run(self, cell: Cell) -> list[Pair]:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(cell.pairs):
                tasks.append(group.create_task(self.pair(cell.thinking())))
                await asyncio.sleep(random.expovariate(RATE))
        return [task.result() for task in tasks]

    async def pair(self, think: float) -> Pair:
        number = self.numbers()
        with Causality() as seen:
            async with self.db.write.begin() as session:
                session.add(Note(id=number, value=-number))
        position = seen.token.position(self.db.view.system)
        assert position is not None
        written = time.perf_counter()
        await asyncio.sleep(think)
        async with asyncio.TaskGroup() as group:
            possible = group.create_task(self.oracle.had(position.lsn))
            lagwise = group.create_task(self.routed(number, str(seen.token)))
            recipes = [group.create_task(self.windowed(number, written, window)) for window in WINDOWS]
        return Pair(possible.result(), lagwise.result(), tuple(recipe.result() for recipe in recipes))

    async def routed(self, number: int, token: str) -> Read:
        with Causality(token):
            began = time.perf_counter()
            async with self.db.read() as session:
                chosen_in = time.perf_counter() - began
                note = await session.get(Note, number)
                on_replica: bool = session.info["lagwise.route"].on_replica
        return Read(on_replica, note is None or note.value != -number, chosen_in)

    async def windowed(self, number: int, written: float, window: float) -> Read:
        on_replica = time.perf_counter() - written >= window
        async with self.windows.session(on_replica) as session:
            note = await session.get(Note, number)
        return Read(on_replica, note is None or note.value != -number)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A cluster of a primary and two replicas, and every contestant connected to it."""
    async with Cluster(replicas=2) as cluster, AsyncExitStack() as stack:
        await created(cluster)
        urls = {node.name: node.direct_url for node in cluster.replicas}
        db = await stack.enter_async_context(Router(cluster.primary.direct_url, urls))
        knows = await stack.enter_async_context(oracle(cluster))
        recipes = await stack.enter_async_context(windows(cluster))
        made = Bench(cluster, db, knows, recipes, Probes(db), itertools.count(1).__next__)
        # Fills every pool: a connection that is opened when its turn comes would make its read a late one.
        await asyncio.gather(*(made.pair(0.0) for _ in range(20)))
        await asyncio.gather(*(made.windowed(0, 0.0, window) for window in WINDOWS * 20))
        yield made


def cells(quick: bool) -> list[Cell]:
    """Every lag with every time to think, and a few where thinking is longer than a window."""
    if quick:
        return [*(Cell(lag, think, 60) for lag in LAGS[::2] for think in THINKS[::3]), Cell(3.0, 2.5, 60)]
    grid = [Cell(lag, think, 300) for lag in LAGS for think in THINKS]
    drawn = [Cell(lag, 1.0, 300, uniform=True) for lag in LAGS]
    late = [Cell(lag, think, 150) for lag, think in ((0.01, 2.5), (3.0, 2.5), (3.0, 3.5), (6.0, 5.5))]
    return sorted([*grid, *drawn, *late], key=lambda cell: cell.lag)


async def run(quick: bool) -> list[Table]:
    """The tables of reads beside the oracle, of the fixed windows, and of probes under a mixed load."""
    title = f"Reads of a client's own write: shares served by replicas; {RATE:g} pairs a second"
    reads = Table("offload", title, READS, notes=(NOTE,), drawn=("oracle", "lagwise"))
    shares = ("lagwise", *(f"{window:g} s" for window in WINDOWS))
    recipes = Table("windows", "The same reads under fixed windows", RECIPES, drawn=shares)
    async with bench() as made:
        for lag, group in itertools.groupby(cells(quick), lambda cell: cell.lag):
            for node in made.cluster.replicas:
                await made.cluster.set_apply_delay(node, lag)
            for cell in group:
                await made.cluster.caught_up(20)
                made.probes.take()
                pairs = await made.run(cell)
                reads.rows[str(cell)] = beside_the_oracle(pairs, made.probes.take()[Role.REPLICA])
                recipes.rows[str(cell)] = in_windows(pairs)
        for node in made.cluster.replicas:
            await made.cluster.set_apply_delay(node, 0.0)
        await made.cluster.caught_up(20)
        return [reads, recipes, await mixed(made.cluster, made.numbers, seconds=3.0 if quick else 10.0)]


def beside_the_oracle(pairs: Sequence[Pair], probes: int) -> dict[str, float]:
    """A line of the first table; `probes` is how many of replicas the reads asked for."""
    possible, served = fmean(p.possible for p in pairs), fmean(p.lagwise.on_replica for p in pairs)
    waits = sorted(pair.lagwise.chosen_in * 1000 for pair in pairs)
    figures = {
        "oracle": possible,
        "lagwise": served,
        "missed": sum(p.possible and not p.lagwise.on_replica for p in pairs),
        "stale": sum(p.lagwise.stale for p in pairs),
        "median ms": median(waits),
        "p99 ms": waits[int(len(waits) * 0.99)],
        "probes/read": probes / len(pairs),
        "pairs": len(pairs),
    }
    return figures | ({"ratio": served / possible} if possible else {})


def in_windows(pairs: Sequence[Pair]) -> dict[str, float]:
    """A line of the second table."""
    figures: dict[str, float] = {
        "oracle": fmean(p.possible for p in pairs),
        "lagwise": fmean(p.lagwise.on_replica for p in pairs),
        "stale": sum(p.lagwise.stale for p in pairs),
    }
    for index, window in enumerate(WINDOWS):
        figures[f"{window:g} s"] = fmean(p.windows[index].on_replica for p in pairs)
        figures[f"{window:g} s, stale"] = sum(p.windows[index].stale for p in pairs)
    return figures
