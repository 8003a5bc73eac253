"""Faults need clusters of their own: what is promoted stays promoted."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lagwise import Policy, Router
from lagwise.testing import Cluster, wait_until

from ..routing.conftest import cluster as cluster
from ..routing.conftest import in_rotation, router
from ..routing.conftest import running as running

QUICK = Policy(max_lag=2.0, sticky_window=2.0, probe_interval=0.1, probe_timeout=0.3, abort_after=1.0)


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router that notices quickly, both replicas in rotation, no time-out configured by the application."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        yield db


@pytest.fixture
async def doomed() -> AsyncIterator[Cluster]:
    """A cluster for one test, with a table of items."""
    async with Cluster(replicas=2) as cluster:
        await cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)")
        await cluster.caught_up()
        yield cluster


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
