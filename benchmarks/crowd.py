"""What clients cost: those that have gone and left only a token, those with a request open, those that wait."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from benchmarks.tables import Table
from lagwise import Causality, Policy, Router
from lagwise._client.doubts import whole_seconds
from lagwise._decide.lsn import LSN
from lagwise._decide.route import Reason
from lagwise._decide.token import CausalToken, Position
from lagwise.testing.cluster import Cluster
from lagwise.testing.gates import wait_until

REACHED, NEVER = 1, 1 << 60  # bytes: where the floors of a crowd begin


def tokens(db: Router, clients: int, floor: int) -> Iterator[str]:
    """What so many clients bring: no two tokens are the same."""
    system, timeline, now = db.view.system, db.view.timeline, whole_seconds()
    for number in range(clients):
        position = Position(system=system, timeline=timeline, lsn=LSN(floor + number), issued_at=now)
        yield str(CausalToken.of([position]))


async def opened(db: Router) -> bool:
    """Whether reads go to replicas; not before the first reading of a replica that has what the primary had."""
    async with db.read() as session:
        on_replica: bool = session.info["lagwise.route"].on_replica
    return on_replica


async def requests(db: Router, brought: Iterable[str]) -> None:
    """What lagwise does for one request of each client: read the token, open a session, decide, close. No SQL."""
    for token in brought:
        with Causality(token):
            async with db.read() as session:
                assert session.info["lagwise.route"].on_replica


async def gone(db: Router, clients: int) -> int:
    """Bytes kept when so many clients have made a request each and gone."""
    await requests(db, tokens(db, 100, REACHED))  # what is made once, for the first client of all
    with _tracing():
        before = _held()
        await requests(db, tokens(db, clients, REACHED))
        return _held() - before


async def seconds_each(db: Router, clients: int) -> float:
    """Seconds for a request."""
    brought = list(tokens(db, clients, REACHED))
    began = time.perf_counter()
    await requests(db, brought)
    return (time.perf_counter() - began) / clients


async def at_once(db: Router, clients: int) -> int:
    """Bytes held while so many clients have a request open, beyond the task that each runs in anyway."""

    async def bare(_: str) -> None:
        await door.wait()

    async def request(token: str) -> None:
        with Causality(token):
            async with db.read():
                await door.wait()

    held = []
    with _tracing():
        for run in (bare, request):
            # The last one to come in opens the door, once it has seen what all of them hold.
            door, before = asyncio.Barrier(clients + 1), _held()
            async with asyncio.TaskGroup() as group:
                for token in tokens(db, clients, REACHED):
                    group.create_task(run(token))
                await wait_until(lambda door=door: door.n_waiting == clients, timeout=600)  # type: ignore[misc]
                held.append(_held() - before)
                await door.wait()
    return held[1] - held[0]


async def waiting(db: Router, clients: int) -> tuple[float, float]:
    """Seconds until the last of so many reads is decided, and CPU seconds of all. No replica reaches their floor."""

    async def read(token: str) -> None:
        with Causality(token):
            async with db.read() as session:
                assert session.info["lagwise.route"].reason is Reason.NONE_CAUGHT_UP

    brought = list(tokens(db, clients, NEVER))
    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for token in brought:
            group.create_task(read(token))
    return time.perf_counter() - began, time.process_time() - cpu


async def crowds(cluster: Cluster, *, quick: bool) -> list[Table]:
    """Memory and time by the number of clients."""
    return [await _memory(cluster, quick=quick), await _waits(cluster, quick=quick)]


async def _memory(cluster: Cluster, *, quick: bool) -> Table:
    sizes = (1, 100, 1_000) if quick else (1, 1_000, 10_000, 100_000)
    table = Table(
        "clients",
        "Clients: memory in the process when they have made a request and gone, and while it is open",
        ("gone, bytes", "each", "open, bytes", "open, each", "us each"),
        notes=(
            "gone: all that is left of a client is the text in its cookie.",
            "open: beyond the asyncio task that every request has. us: for a whole request, without SQL.",
        ),
        drawn=("gone, bytes", "open, bytes"),
    )
    # A monitor that hardly reads: what it keeps is not the clients'.
    quiet = Policy(probe_interval=600, max_lag=600, sticky_window=600)
    async with _router(cluster, quiet) as db:
        await wait_until(lambda: opened(db), what="the replicas have caught up")
        for size in sizes:
            kept = await gone(db, size)
            each = await seconds_each(db, max(1_000, min(size, 10_000)))
            table.rows[_named(size, "client")] = {"gone, bytes": kept, "each": kept / size, "us each": each * 1e6}
        # Afterwards: dictionaries that once held so many keep their size. One client alone drowns in what is freed.
        await at_once(db, 100)
        for size in sizes[1:]:
            held = await at_once(db, size)
            table.rows[_named(size, "client")] |= {"open, bytes": held, "open, each": held / size}
    return table


async def _waits(cluster: Cluster, *, quick: bool) -> Table:
    table = Table(
        "waiting",
        "Reads that wait at the same time for a floor that no replica reaches",
        ("until last ms", "CPU us each", "at once ms", "at once us"),
        notes=(
            "catch_up = 50 ms; at once: the same reads with catch_up = 0, which do not wait.",
            "CPU: of this process; the probes that a wait asks for are in it, and shared by all who wait.",
        ),
        drawn=("until last ms", "at once ms"),
    )
    async with _router(cluster, Policy()) as db, _router(cluster, Policy(catch_up=0)) as hasty:
        for each in (db, hasty):
            await wait_until(lambda each=each: opened(each), what="the replicas have caught up")  # type: ignore[misc]
        for size in (1, 10, 100) if quick else (1, 10, 100, 1_000, 10_000):
            took, cpu = await waiting(db, size)
            took_at_once, cpu_at_once = await waiting(hasty, size)
            table.rows[_named(size, "read")] = {
                "until last ms": took * 1e3,
                "CPU us each": cpu / size * 1e6,
                "at once ms": took_at_once * 1e3,
                "at once us": cpu_at_once / size * 1e6,
            }
    return table


def _router(cluster: Cluster, policy: Policy) -> Router:
    replicas = [node.direct_url for node in cluster.replicas]
    return Router(cluster.primary.direct_url, replicas, policy=policy)


def _named(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count > 1)}"


@contextmanager
def _tracing() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
