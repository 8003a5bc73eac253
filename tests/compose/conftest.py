"""One project of compose.replica.yaml for the tests of this directory, where a Docker engine answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .stack import VERSION, Stack, why_not


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips, with the reason, where compose.replica.yaml cannot be brought up."""
    if reason := why_not(image=f"postgres:{VERSION}"):
        pytest.skip(reason)


@asynccontextmanager
async def project(name: str) -> AsyncIterator[Stack]:
    """A project that leaves neither container nor volume nor network behind."""
    stack = Stack(f"lagwise-test-{os.getpid()}-{name}")
    try:
        yield stack
    finally:
        await stack.remove()


@pytest.fixture(scope="module")
async def stack(engine: None) -> AsyncIterator[Stack]:
    """A primary and two replicas, up and healthy."""
    async with project("shared") as stack:
        await stack.up()
        yield stack


@pytest.fixture
async def fresh(engine: None) -> AsyncIterator[Stack]:
    """A project of which nothing exists yet."""
    async with project("fresh") as stack:
        yield stack
