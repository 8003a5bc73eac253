"""The same over HTTP: FastAPI behind uvicorn, one worker process for each application, 16 connections to it."""

import asyncio
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.application import prepared
from benchmarks.contestants import BARE, PLAIN, RECIPE
from benchmarks.peer import Peer, module
from benchmarks.progress import progress
from benchmarks.serving import CONTESTANTS
from benchmarks.tables import Table
from benchmarks.turns import order

CLIENTS = 16
COLUMNS = ("per s", "p50 ms", "p99 ms", "CPU us", "x recipe", "x limit")


@dataclass(frozen=True, slots=True)
class Mix:
    """What is asked for, and which row is the limit of what can be answered."""

    key: str
    title: str
    writes: float
    limit: str
    frozen: bool = False
    """Whether Python's collector is told, once warm, that what exists by then will stay."""


@dataclass(slots=True)
class Turns:
    """What the turns of one application came to."""

    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Microseconds of the server's processor for one request."""
    failed: int = 0
    to_primary: int = 0
    """Connections that lagwise has opened to the primary by now; for nothing but reads, it has fallen back."""

    def row(self) -> dict[str, float]:
        figures = (self.rates, self.p50, self.p99, self.cpu)
        return dict(zip(COLUMNS, map(statistics.median, figures), strict=False))


async def turn(load: Peer, server: Peer, mix: Mix, seconds: float, turns: Turns) -> None:
    """Load one server for a while."""
    before = await server.ask()
    found = await load.ask(port=before["port"], clients=CLIENTS, seconds=seconds, writes=mix.writes)
    after = await server.ask()
    turns.rates.append(found["per_second"])
    turns.p50.append(found["p50"])
    turns.p99.append(found["p99"])
    turns.cpu.append((after["cpu"] - before["cpu"]) / found["requests"] * 1e6)
    turns.failed += found["failed"]
    turns.to_primary = after["to_primary"]


async def measure(mix: Mix, names: list[str], quick: bool) -> list[Table]:
    """All servers are up at once and are loaded in turns.

    They are started anew every few rounds: where a process happens to lie in memory makes it faster or slower
    than its twin, by several per cent, for as long as it lives.
    """
    lives, rounds, seconds = (1, 2, 0.5) if quick else (5, 2, 1.5)
    turns = {name: Turns() for name in names}
    async with prepared() as (_, servers):
        for life in range(lives):
            progress(f"{mix.key}: round {life + 1} of {lives}")
            async with AsyncExitStack() as stack:
                load = await stack.enter_async_context(module("load"))
                up = {name: await stack.enter_async_context(module("serving", name)) for name in names}
                await asyncio.gather(*(server.ask(**servers.as_json()) for server in up.values()))
                for server in up.values():
                    await turn(load, server, mix, 0.5, Turns())
                    if mix.frozen:
                        await server.ask(freeze=True)
                for number in range(rounds):
                    for name in order(names, life + number):
                        await turn(load, up[name], mix, seconds, turns[name])
    rows = {name: taken.row() for name, taken in turns.items()}
    recipe, limit = rows[RECIPE]["per s"], rows[mix.limit]["per s"]
    for row in rows.values():
        row |= {"x recipe": row["per s"] / recipe, "x limit": row["per s"] / limit}
    notes = [
        f"x recipe, x limit ({mix.limit}): requests per second, as a multiple; more is better.",
        "CPU us: of the server's process, for one request. The load and PostgreSQL run on the same machine.",
        *(f"{name}: {taken.failed} answers were errors" for name, taken in turns.items() if taken.failed),
        *(
            f"{name}: fell back to the primary for a time"
            for name, taken in turns.items()
            if taken.to_primary and not mix.writes
        ),
    ]
    title = f"{mix.key}: {mix.title}; {CLIENTS} connections, medians of {lives * rounds} turns, {lives} starts"
    return [Table(mix.key, title, COLUMNS, rows, tuple(notes), ("per s",))]


async def read(quick: bool) -> list[Table]:
    """Every request reads one row."""
    return await measure(Mix("http-read", "GET of one row", 0.0, BARE), list(CONTESTANTS), quick)


async def frozen(quick: bool) -> list[Table]:
    """Reads again, after `gc.freeze()`: full collections are most of the 99th percentile."""
    mix = Mix("http-frozen", "GET of one row after gc.freeze()", 0.0, BARE, frozen=True)
    return await measure(mix, list(CONTESTANTS), quick)


async def write(quick: bool) -> list[Table]:
    """Every request inserts one row."""
    # An AUTOCOMMIT engine has no transaction to commit: it is no limit of this.
    names = [name for name in CONTESTANTS if name != BARE]
    return await measure(Mix("http-write", "POST of one row", 1.0, PLAIN), names, quick)


async def mixed(quick: bool) -> list[Table]:
    """Nine reads to one write, by clients that bring back their cookies."""
    mix = Mix("http-mixed", "nine GETs to one POST, clients keep cookies", 0.1, BARE)
    return await measure(mix, list(CONTESTANTS), quick)
