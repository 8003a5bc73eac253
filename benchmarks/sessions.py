"""What one session costs, one after the other: round trips, time near and far, processor."""

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.alchemy import alchemists
from benchmarks.application import Servers, prepared
from benchmarks.contestants import PLAIN, RECIPE, Contestant, readers, writers
from benchmarks.peer import Peer
from benchmarks.progress import progress
from benchmarks.tables import Table
from benchmarks.turns import order
from benchmarks.wire import Wire, wired

BATCH = 20  # sessions in a turn
NEAR, FAR = 0.0005, 0.002  # seconds that each message to a server is held back: another zone, another region nearby
COLUMNS = ("trips", "us", "us +0.5ms", "us +2ms", "CPU us", "x recipe", "x recipe +0.5ms", "x limit")
Enter = Callable[[AsyncExitStack, Servers, Peer | None], Awaitable[list[Contestant]]]


@dataclass(slots=True)
class Took:
    """Microseconds of each session, and the processor's of each turn's sessions."""

    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.times)


async def take_turns(contestants: list[Contestant], rounds: int) -> dict[str, Took]:
    """Each contestant runs a few sessions, again and again: whatever else the machine does meets all of them."""
    took = {each.name: Took() for each in contestants}
    for turn in range(rounds):
        for each in order(contestants, turn):
            timing = await each.batch(BATCH)
            took[each.name].times += [seconds * 1e6 for seconds in timing.seconds]
            took[each.name].cpu.append(timing.cpu / BATCH * 1e6)
    return took


async def count_trips(contestants: list[Contestant], wire: Wire) -> dict[str, float]:
    """Round trips of one session, on the wire."""
    trips = {}
    for each in contestants:
        before = await wire.trips()
        await each.batch(BATCH)
        trips[each.name] = (await wire.trips() - before) / BATCH
    return trips


async def measure(enter: Enter, name: str, quick: bool) -> tuple[dict[str, dict[str, float]], str]:
    """The rows, and a note on advanced-alchemy."""
    async with AsyncExitStack() as stack:
        _, direct = await stack.enter_async_context(prepared())
        wire = await stack.enter_async_context(wired(direct))
        peers, note = await stack.enter_async_context(alchemists(direct, wire.servers))
        near = await enter(stack, direct, peers[0])
        far = await enter(stack, wire.servers, peers[1])
        progress(f"{name}: warming up")
        for each in (*near, *far):
            await each.batch(3 * BATCH)
        trips = await count_trips(far, wire)
        progress(f"{name}: directly")
        at_once = await take_turns(near, 10 if quick else 150)
        delayed = {}
        for delay, rounds in ((NEAR, 3 if quick else 30), (FAR, 2 if quick else 12)):
            progress(f"{name}: {delay * 1000:g} ms away")
            await wire.delay(delay)
            delayed[delay] = await take_turns(far, rounds)
        await wire.delay(0.0)
    rows = {}
    for each in near:
        took, half, two = at_once[each.name], delayed[NEAR][each.name], delayed[FAR][each.name]
        rows[each.name] = dict(
            zip(
                COLUMNS,
                (
                    trips[each.name],
                    took.median,
                    half.median,
                    two.median,
                    statistics.median(took.cpu),
                    took.median / at_once[RECIPE].median,
                    half.median / delayed[NEAR][RECIPE].median,
                    took.median / at_once[each.limit].median,
                ),
                strict=True,
            )
        )
    return rows, note


async def read(quick: bool) -> list[Table]:
    """Get one row by its primary key, in a session of its own."""
    rows, note = await measure(readers, "read", quick)
    notes = (
        "x recipe: time, as a multiple of the usual recipe's; less is better.",
        "x limit: as a multiple of the bare AUTOCOMMIT engine's; Core beside Core, raw beside the raw pool.",
        note,
    )
    title = "read: one row by its primary key; medians of sessions one after the other"
    return [Table("read", title, COLUMNS, rows, notes, ("us", "us +0.5ms"))]


async def write(quick: bool) -> list[Table]:
    """Insert one row and commit, in a session of its own."""
    rows, note = await measure(writers, "write", quick)
    notes = (
        f"x limit: as a multiple of {PLAIN}'s, the least that a transaction takes. The servers run without fsync.",
        note,
    )
    title = "write: one INSERT and COMMIT; medians of sessions one after the other"
    return [Table("write", title, COLUMNS, rows, notes, ("us", "us +0.5ms"))]
