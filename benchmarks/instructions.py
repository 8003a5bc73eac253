"""The router's own share of a read, in instructions: valgrind counts them, and no other process disturbs that.

Each contestant runs twice, with few sessions and with many; the difference is the sessions' alone, without
imports and connections. Cachegrind counts like callgrind, and does not lose its way where greenlets change stacks.

Where Python's names and types lie in memory decides which of them share a place in its caches, so that the very same
session takes two per cent more or fewer in another process. So each count is the mean of several processes, in which
they lie elsewhere.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from statistics import mean

from benchmarks.application import Servers, prepared
from benchmarks.contestants import BARE, BARE_CORE, CORE, DRIVER, LAGWISE, RAW, WITH_TOKEN
from benchmarks.peer import ROOT, PeerError
from benchmarks.progress import progress
from benchmarks.tables import Table

VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
COLUMNS = ("thousands", "to", "added", "x limit")
SEEDS = range(1, 5)
_COUNTED = re.compile(r"I\s+refs: *([\d,]+)")


# Contestant -> what lies beneath it.
COMPARED = {
    BARE: BARE,
    LAGWISE: BARE,
    WITH_TOKEN: BARE,
    BARE_CORE: BARE_CORE,
    CORE: BARE_CORE,
    RAW: RAW,
    DRIVER: RAW,
}


async def script(servers: Servers, prefix: tuple[str, ...], name: str, count: int, seed: int = 0) -> str:
    """Run the script; what it wrote to standard error."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-m", "benchmarks.counted", name, str(count), str(seed)),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, told = await process.communicate(json.dumps(servers.as_json()).encode() + b"\n")
    finally:
        if process.returncode is None:
            process.kill()
    text = told.decode(errors="replace")
    if process.returncode:
        raise PeerError(f"{name}: {text.strip().splitlines()[-1:]}")
    return text


async def instructions(servers: Servers, name: str, few: int, many: int, places: asyncio.Semaphore) -> list[float]:
    """Instructions of one session, in a process for each seed."""

    async def counted(count: int, seed: int) -> int:
        async with places:
            progress(f"instructions: {name}, {count} sessions, seed {seed}")
            found = _COUNTED.search(await script(servers, VALGRIND, name, count, seed))
            assert found is not None, "valgrind said nothing"
            return int(found[1].replace(",", ""))

    async def of_one(seed: int) -> float:
        less, more = await asyncio.gather(counted(few, seed), counted(many, seed))
        return (more - less) / (many - few)

    return await asyncio.gather(*map(of_one, SEEDS))


async def run(quick: bool) -> list[Table]:
    """The table; lagwise's sessions are compared with what they stand on. Without valgrind it is empty, with a note."""
    title = "instructions: one read, thousands of processor instructions of the client, by valgrind"
    if shutil.which("valgrind") is None:
        return [Table("instructions", title, COLUMNS, notes=("left out: valgrind is not installed",))]
    few, many = (50, 150) if quick else (50, 450)
    pairs = COMPARED
    async with prepared() as (_, servers):
        await script(servers, (), BARE, 1)  # everything is compiled
        places = asyncio.Semaphore(os.cpu_count() or 1)
        counted = await asyncio.gather(*(instructions(servers, name, few, many, places) for name in pairs))
    counts = dict(zip(pairs, counted, strict=True))
    found = {name: mean(each) for name, each in counts.items()}
    rows = {
        name: {
            "thousands": found[name] / 1000,
            "to": max(counts[name]) / 1000,
            "added": (found[name] - found[limit]) / 1000,
            "x limit": found[name] / found[limit],
        }
        for name, limit in pairs.items()
    }
    notes = (
        f"thousands: the mean of {len(SEEDS)} processes, whose names lie elsewhere in memory; to: the greatest.",
        "added, x limit: to the session, the Core connection, the raw connection it stands on.",
    )
    return [Table("instructions", title, COLUMNS, rows, notes, ("thousands",))]
