"""Waiting costs the same however many wait: a number that is reached wakes exactly those who wait for it."""

import asyncio

import pytest

from lagwise._nodes import waiting
from lagwise._nodes.waiting import Queue


async def begun(*waits: "asyncio.Task[bool]") -> None:
    """Let the tasks run up to where they wait."""
    await asyncio.sleep(0)
    assert not any(each.done() for each in waits)


async def test_a_number_wakes_exactly_those_it_satisfies() -> None:
    """In any order of arrival; the others sleep on, and are woken by theirs."""
    queue = Queue()
    waits = {least: asyncio.create_task(queue.wait(least, 60)) for least in (30, 10, 20, 40)}
    await begun(*waits.values())
    assert (queue.reach(9), queue.reach(20), len(queue)) == (0, 2, 2)
    assert await waits[10]
    assert await waits[20]
    assert not waits[30].done()
    assert (queue.reach(), len(queue)) == (2, 0)
    assert await waits[30]
    assert await waits[40]


async def test_nothing_is_left_of_a_waiter_that_is_cancelled_or_too_late() -> None:
    """Neither in the queue nor among those that a number wakes."""
    queue = Queue()
    cancelled = [asyncio.create_task(queue.wait(number % 7, 60)) for number in range(100)]
    late = asyncio.create_task(queue.wait(3, 0.01))
    await begun(*cancelled, late)
    for each in cancelled[::2]:
        each.cancel()
    assert await late is False
    assert len(queue) == 50
    assert queue.reach() == 50
    ends = await asyncio.gather(*cancelled, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, False] * 50


async def test_one_who_is_cancelled_when_woken_takes_nobodys_place() -> None:
    """The wake-up and the cancellation come in one turn of the loop."""
    queue = Queue()
    waits = [asyncio.create_task(queue.wait(1, 60)) for _ in range(2)]
    await begun(*waits)
    assert queue.reach(1) == 2
    waits[0].cancel()
    first, second = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert second is True
    assert len(queue) == 0


async def test_a_crowd_does_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many does not wait at all: it is answered as if its time were over."""
    monkeypatch.setattr(waiting, "_MOST", 3)
    queue = Queue()
    waits = [asyncio.create_task(queue.wait(1, 60)) for _ in range(3)]
    await begun(*waits)
    assert await queue.wait(1, 60) is False
    queue.reach()
    assert await asyncio.gather(*waits) == [True] * 3
