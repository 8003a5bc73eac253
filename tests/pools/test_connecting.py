"""The time to connect is the node's: a busy process does not use it up, and a silent node does."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from lagwise._pools.connecting import Connecting

BOUND = 0.4  # seconds
Waits: TypeAlias = Callable[[Connecting, asyncio.Event], Coroutine[Any, Any, str]]


async def connect(attempts: Connecting, answered: asyncio.Event) -> str:
    """Wait for a node as an engine does, and tell how it ended."""
    task = asyncio.current_task()
    assert task is not None
    attempts.begin(task, BOUND)
    try:
        await answered.wait()
    except asyncio.CancelledError:
        return "timed out" if attempts.timed_out(task) else "cancelled"
    attempts.end(task)
    return "connected"


async def plain(_: Connecting, answered: asyncio.Event) -> str:
    """The same with a plain timer."""
    try:
        async with asyncio.timeout(BOUND):
            await answered.wait()
    except TimeoutError:
        return "timed out"
    return "connected"


@pytest.mark.parametrize(("waits", "end"), [(connect, "connected"), (plain, "timed out")])
async def test_a_busy_process_does_not_use_up_the_time(waits: Waits, end: str) -> None:
    """The event loop is held three times as long as the bound, in pieces; then the answer is read."""
    attempts, answered = Connecting(), asyncio.Event()
    waiting = asyncio.create_task(waits(attempts, answered))
    for _ in range(12):
        time.sleep(0.1)  # an endpoint that computes
        await asyncio.sleep(0)
    answered.set()
    assert await waiting == end
    attempts.close()


async def test_a_silent_node_uses_it_up() -> None:
    """No answer, and nothing else to do: each attempt ends, and nothing is left of it."""
    attempts, never = Connecting(), asyncio.Event()
    ends = await asyncio.gather(*(connect(attempts, never) for _ in range(10)))
    assert ends == ["timed out"] * 10
    assert (attempts._running, attempts._ended) == ({}, {})
    attempts.close()


async def test_a_cancellation_from_elsewhere_is_not_a_time_out() -> None:
    """A client that goes away is cancelled, whatever the time to connect has come to."""
    attempts, never = Connecting(), asyncio.Event()
    waiting = asyncio.create_task(connect(attempts, never))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await waiting == "cancelled"
    attempts.close()
