"""What reads cost when a replica goes silent: its packets are swallowed, its sockets stay open, and no client is told.

The network before one of two replicas becomes a black hole right after that one has answered a probe: the worst
moment, for the next probe is then as far away as it can be. It is healed after the last read.

Clients that do not pause keep the processor busy, and the proxies, which are the network, share it with them: a
client that is cut off queues with all others to read elsewhere. Clients that pause show lagwise's own part in that.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.application import POOL, Base
from benchmarks.contestants import maker_on, reading
from benchmarks.progress import progress
from benchmarks.readers import Readers, at_work
from benchmarks.tables import Table
from lagwise import Policy, Router
from lagwise.testing import Cluster, wait_until

SILENT = "replica-1"
POLICY = Policy(abort_after=2.0)
STATEMENT = 0.3  # seconds that the driver waits for a statement, where it is told to
TIME_OUT: dict[str, Any] = {"connect_args": {"command_timeout": STATEMENT}}
FEW, MANY, PAUSE = 20, 50, 0.08
_PATIENCE = 5.0  # seconds for a read of lagwise's that should have ended
_LAST = 1.0  # seconds that a read of the others has to end in, when all is over
COLUMNS = (
    "reads",
    "errors",
    "hung",
    "p99 ms before",
    "slowest ms",
    "beyond limit",
    "p99 ms after",
    "after/before",
)
NOTES = (
    f"Policy(abort_after={POLICY.abort_after:g}); command_timeout={STATEMENT:g} is asyncpg's. Pools of 20 per node.",
    "slowest: in any round, of the reads that had not ended when the fault began, and of all later ones.",
    "beyond limit: ms; less than 0: within. The limit is abort_after + probe_interval; with command_timeout it is that",
    "and two probe_timeout, in which a probe finds the node silent and new connections to it are given up.",
    "after: reads that began when the limit had passed; the replica is silent still.",
    f"pausing: {PAUSE * 1e3:g} ms on average between two reads of a reader; the others do not.",
    "cold pools: the readers opened what they needed before the fault; elsewhere every connection is open.",
    "AsyncSession: on the silent replica alone; one round. hung: had not ended when the benchmark gave up.",
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How many rounds; seconds of reading before the fault, and once its limit has passed; for how long plain ones."""

    rounds: int
    before: float
    after: float
    plain: float


QUICK, FULL = Pace(1, 0.3, 0.3, 2.0), Pace(3, 0.4, 0.4, 5.0)


@dataclass(frozen=True, slots=True)
class Case:
    """A row of lagwise: how many readers, what its engines are told, seconds no read should take longer than."""

    name: str
    readers: int
    limit: float = POLICY.abort_after + POLICY.probe_interval
    options: dict[str, Any] = field(default_factory=dict)
    pause: float = 0.0
    warm: bool = True

    def __str__(self) -> str:
        return f"lagwise, {self.name}, {self.readers} readers{', pausing' if self.pause else ''}"


def cases(quick: bool) -> list[Case]:
    bare, told = Case("no time-out", FEW), Case("command_timeout", FEW, STATEMENT + 2 * POLICY.probe_timeout, TIME_OUT)
    cold = replace(told, name="command_timeout, cold pools", warm=False)
    if quick:
        return [bare, told, cold]
    each = [[one, replace(one, readers=MANY), replace(one, readers=MANY, pause=PAUSE)] for one in (bare, told)]
    return [*each[0], *each[1], cold]


@dataclass(slots=True)
class Found:
    """What the rounds of one row came to."""

    reads: int = 0
    hung: int = 0
    slowest: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def add(self, readers: Readers, fault: float) -> None:
        self.reads += len(readers.reads)
        self.hung += readers.hung
        self.errors += readers.errors
        self.slowest = max(self.slowest, *readers.since(fault))

    def row(self, limit: float | None) -> dict[str, float]:
        figures: dict[str, float] = {
            "reads": self.reads,
            "errors": self.errors.total(),
            "hung": self.hung,
            "slowest ms": self.slowest * 1e3,
        }
        if limit is not None:
            figures["beyond limit"] = (self.slowest - limit) * 1e3
        if self.before and self.after:
            before, after = _p99(self.before), _p99(self.after)
            figures |= {"p99 ms before": before * 1e3, "p99 ms after": after * 1e3, "after/before": after / before}
        return figures


@asynccontextmanager
async def prepared() -> AsyncIterator[Cluster]:
    """A primary and two replicas with one row to read."""
    async with Cluster(replicas=2) as cluster:
        engine = create_async_engine(cluster.primary.direct_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO item (name) VALUES ('read me')"))
        await engine.dispose()
        await cluster.caught_up()
        yield cluster


async def routed(cluster: Cluster, case: Case, pace: Pace) -> Found:
    """The rounds of lagwise, each with a Router of its own."""
    found = Found()
    options: dict[str, Any] = {**POOL, **case.options}
    for _ in range(pace.rounds):
        replicas = {node.name: node.url for node in cluster.replicas}
        async with Router(cluster.primary.url, replicas, policy=POLICY, **options) as db:
            await silenced(cluster, db, case, pace, found)
    return found


async def silenced(cluster: Cluster, db: Router, case: Case, pace: Pace, found: Found) -> None:
    """One round."""
    await wait_until(lambda: len(db.view.rotation) == len(cluster.replicas), what="the replicas are in rotation")
    if case.warm:
        await warmed(db)
    async with at_work(reading(db.read), case.readers, case.pause) as readers:
        await asyncio.sleep(pace.before / 2)  # statements are prepared
        calm = time.perf_counter()
        await asyncio.sleep(pace.before)
        await answered(db)
        fault = time.perf_counter()
        await cluster.black_hole(SILENT)
        await asyncio.sleep(case.limit)
        over = time.perf_counter()
        await asyncio.sleep(pace.after)
        await readers.stop(_PATIENCE)
        await cluster.heal()
    found.add(readers, fault)
    found.before += readers.between(calm, fault)
    found.after += readers.between(over)


async def warmed(db: Router) -> None:
    """Open every connection that the pools of the replicas may hold."""

    async def hold() -> None:
        async with db.read() as session:
            await session.execute(text("SELECT pg_sleep(0.1)"))

    for node in db.view.rotation:
        db.drain(node.name)
        await asyncio.gather(*(hold() for _ in range(POOL["pool_size"])))
        db.undrain(node.name)


async def answered(db: Router) -> None:
    """Until the replica that is about to go silent answers a probe."""
    latest = db.view.node(SILENT).reading
    await wait_until(lambda: db.view.node(SILENT).reading is not latest, what="a probe", interval=0.001)


async def plain(cluster: Cluster, options: dict[str, dict[str, Any]], pace: Pace) -> dict[str, Found]:
    """One round of plain sessions on engines with these options, side by side in the same black hole."""
    # Heard of once the hole is healed: what the driver sent to cancel statements that no task waits for any more.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with AsyncExitStack() as stack:
        crowds = {}
        for name, each in options.items():
            run = reading(maker_on(stack, cluster[SILENT].url, **each))
            crowds[name] = await stack.enter_async_context(at_work(run, FEW))
        await asyncio.sleep(pace.before)
        fault = time.perf_counter()
        await cluster.black_hole(SILENT)
        await asyncio.sleep(pace.plain - _LAST)
        await asyncio.gather(*(readers.stop(_LAST) for readers in crowds.values()))
        await cluster.heal()
    asyncio.get_running_loop().set_exception_handler(None)
    found = {name: Found() for name in crowds}
    for name, readers in crowds.items():
        found[name].add(readers, fault)
    return found


async def run(quick: bool) -> list[Table]:
    """lagwise without any time-out and with one of the driver's, and plain sessions with and without."""
    pace = QUICK if quick else FULL
    title = "black-hole: reads around the moment when one of two replicas goes silent"
    rows: dict[str, dict[str, float]] = {}
    errors: dict[str, Counter[str]] = {}
    async with prepared() as cluster:
        for case in cases(quick):
            progress(f"black-hole: {case}")
            found = await routed(cluster, case, pace)
            rows[str(case)], errors[str(case)] = found.row(case.limit), found.errors
        progress("black-hole: plain sessions")
        told, bare = (f"AsyncSession, {name}, {FEW} readers" for name in ("command_timeout", "no time-out"))
        for name, found in (await plain(cluster, {told: TIME_OUT, bare: {}}, pace)).items():
            rows[name], errors[name] = found.row(STATEMENT if name == told else None), found.errors
    met = tuple(f"{name}: {dict(counted)}" for name, counted in errors.items() if counted)
    return [Table("black-hole", title, COLUMNS, rows, NOTES + met, ("slowest ms",))]


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]
