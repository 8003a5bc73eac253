"""The two phases, what is shown of them while they run, and what comes after."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console, RenderableType
from rich.live import Live

from lagwise import health
from lagwise.cli.demo import report
from lagwise.cli.demo.application import LAGWISE, NAIVE
from lagwise.cli.demo.stage import Stage, stage
from lagwise.cli.demo.traffic import Score, drive

_WARM_UP, _REFRESH, _LINE_EVERY = 0.5, 0.25, 2.0  # seconds


async def play(seconds: float, clients: int, *, serve: bool, as_json: bool, closing: Callable[[], None]) -> int:
    """The exit status. `closing` is called when only the cleaning up is left."""
    console = Console(quiet=as_json, highlight=False)
    console.print("Starting a primary and two replicas that lag ...")
    async with stage() as where:
        try:
            naive, lagwise = Score(), Score()
            source = where.cluster.origin.partition(": ")[0]  # without the directory
            title = f"PostgreSQL {where.cluster.version} ({source}), {clients} clients"

            def picture() -> RenderableType:
                return report.tables(naive, lagwise, health.nodes(where.db), title)

            await _warm_up(where.url, clients)
            async with _shown(console, picture):
                for name, path, tally in (("naive split", NAIVE, naive), ("lagwise", LAGWISE, lagwise)):
                    async with _told(console, name, tally):
                        await drive(where.url, path, tally, clients=clients, seconds=seconds)
            ruling = report.verdict(naive, lagwise)
            if as_json:
                found = report.as_json(naive, lagwise, health.nodes(where.db))
                about = {"postgresql": where.cluster.version, "clients": clients, "seconds": seconds}
                _say(json.dumps({**found, **about, "serving": where.url if serve else None}))
            else:
                if not _is_live(console):
                    console.print(picture())
                _say(f"{report.NOTE}\n\n{ruling.words}")
            if serve:
                await _keep_up(where, quiet=as_json)
        finally:
            closing()
    return 0 if ruling.passed else 1


async def _warm_up(url: str, clients: int) -> None:
    """Let both applications fill their pools, uncounted: connecting is not compared."""
    async with asyncio.TaskGroup() as group:
        for path in (NAIVE, LAGWISE):
            group.create_task(drive(url, path, Score(), clients=clients, seconds=_WARM_UP))


async def _keep_up(where: Stage, *, quiet: bool) -> None:
    if not quiet:
        pages = {"": "try both", "/docs": "the API", "/health/nodes": "where the nodes are", "/health/pools": "pools"}
        _say("\n" + "\n".join(f"{where.url}{path or '/'}  {what}" for path, what in pages.items()))
        _say("\nCtrl-C stops it.")
    await asyncio.Event().wait()


def _say(text: str) -> None:
    # Not through the console, which wraps lines where there is no terminal.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


@asynccontextmanager
async def _shown(console: Console, picture: Callable[[], RenderableType]) -> AsyncIterator[None]:
    """Keep the tables up to date, where there is a terminal."""
    if not _is_live(console):
        yield
        return
    with Live(get_renderable=picture, console=console, auto_refresh=False) as live:
        async with _repeatedly(_REFRESH, live.refresh):
            yield
        live.refresh()


@asynccontextmanager
async def _told(console: Console, name: str, tally: Score) -> AsyncIterator[None]:
    """Say how a phase is getting on, where there is no terminal."""
    if _is_live(console) or console.quiet:
        yield
        return
    _say(f"{name} ...")
    started = time.monotonic()

    def tell() -> None:
        _say(report.line(name, tally, time.monotonic() - started))

    async with _repeatedly(_LINE_EVERY, tell):
        yield


@asynccontextmanager
async def _repeatedly(seconds: float, act: Callable[[], None]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            act()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
