"""Many uses at once, some of them cancelled, with answers and errors kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from lagwise.testing import wait_until


def patience(dice: random.Random) -> float | None:
    """How long somebody waits before they cancel, seconds. One in ten does not, however slow the machine."""
    return None if dice.random() < 0.1 else dice.random() * 0.01


async def many(count: int, work: Callable[[int], Awaitable[Any]], *, at_once: int) -> list[Any]:
    """Results, or errors, of `count` calls, `at_once` of them at any time."""
    turns = iter(range(count))
    results: list[Any] = []

    async def one() -> None:
        for turn in turns:
            try:
                results.append(await work(turn))
            except Exception as error:
                results.append(error)

    await asyncio.gather(*(one() for _ in range(at_once)))
    return results


@asynccontextmanager
async def loaded(read: Callable[[], Awaitable[Any]], *, readers: int, reads: int) -> AsyncIterator[list[Any]]:
    """Readers at work while the block runs, `reads` of them at least; the list fills with answers and errors."""
    results: list[Any] = []
    done = asyncio.Event()

    async def reader() -> None:
        while not done.is_set() or len(results) < reads:
            try:
                results.append(await read())
            except Exception as error:
                results.append(error)

    tasks = [asyncio.create_task(reader()) for _ in range(readers)]
    await wait_until(lambda: len(results) > reads // 4, timeout=60, what="readers at work")
    yield results
    done.set()
    await asyncio.gather(*tasks)


def errors(results: list[Any]) -> list[Any]:
    """Those that failed."""
    return [result for result in results if isinstance(result, BaseException)]
