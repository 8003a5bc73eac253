"""The loop of ``lagwise watch``: look, show, wait; until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from time import monotonic

from rich.console import Console
from rich.live import Live

from lagwise.cli.watch.screen import plain, screen
from lagwise.cli.watch.source import Application, Direct, Snapshot, Unanswered, source

_FAILED = 1


async def play(urls: Sequence[str], interval: float, *, once: bool) -> int:
    """Show snapshots until the task is cancelled, or one. Returns the exit status.

    Raises:
        ValueError: a URL or a setting makes no sense.
    """
    task, loop, ended = asyncio.current_task(), asyncio.get_running_loop(), list[signal.Signals]()
    assert task is not None

    def end(number: signal.Signals) -> None:
        if not ended:  # a second one must not stop the terminal from being restored
            ended.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        async with source(urls) as found:
            return await _show(found, interval, once=once)
    except asyncio.CancelledError:
        if not ended:
            raise
        return 128 + signal.SIGTERM if ended[0] is signal.SIGTERM else 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _show(found: Direct | Application, interval: float, *, once: bool) -> int:
    console = Console(highlight=False, markup=False, emoji=False)
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not once else None
    last: Snapshot | None = None
    at = began = monotonic()
    with live or nullcontext():
        while True:
            trouble = ""
            try:
                last, at = await found.snapshot(), monotonic()
            except Unanswered as error:
                trouble = str(error)
            if live is not None:
                live.update(screen(last, trouble, monotonic() - at, console.width), refresh=True)
            elif once and console.is_terminal:
                console.print(screen(last, trouble, monotonic() - at, console.width))
            else:
                sys.stdout.write("\n".join(plain(last, trouble, monotonic() - at)) + "\n\n")
                sys.stdout.flush()
            if once:
                return _FAILED if last is None or last.status == "fail" else 0
            # Looks are `interval` apart, however long one takes; those that are late are left out.
            passed = monotonic() - began
            await asyncio.sleep(interval - passed % interval)
