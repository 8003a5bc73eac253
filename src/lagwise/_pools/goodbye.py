"""Closes idle connections, all at the same time and within a time limit."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from lagwise._pools.counters import Counters
from lagwise._pools.driver import driver_of
from lagwise._pools.setup import Setup


async def say_goodbye(setups: Iterable[Setup], counters: Iterable[Counters], seconds: float) -> None:
    """Close the connections that were set up and are in no session's use, at most `seconds` each, together."""
    using = {id(driver_of(one)) for each in counters for one in each.in_use() if not one.invalidated}
    idle = [
        driver for setup in setups for driver in setup.drivers if id(driver) not in using and not driver.is_closed()
    ]
    await asyncio.gather(*(_close(driver, seconds) for driver in idle))


async def _close(driver: Any, seconds: float) -> None:
    with suppress(Exception):
        await driver.close(timeout=seconds)  # what takes longer is cut off by asyncpg
