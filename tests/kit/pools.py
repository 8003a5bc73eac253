"""The pools of one node, and connections taken from them as a session takes them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._pools.engine import RoutedEngine
from lagwise._pools.pools import Pools

ROLES = pytest.mark.parametrize("role", ["reads", "writes"])


def pools_of(target: Any, **options: Any) -> Pools:
    """The pools of one node."""
    return Pools("node", target, weight=1.0, options=options)


class Taken:
    """A connection that a session was given."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def ask(self, sql: str) -> Any:
        """Run a statement; its first value, if it has one."""

        def run() -> Any:
            result = self.connection.exec_driver_sql(sql)
            return result.scalar() if result.returns_rows else None

        return await greenlet_spawn(run)

    async def script(self, sql: str) -> None:
        """Run a script on the driver's connection."""
        await self.connection.connection.driver_connection.execute(sql)

    async def close(self) -> None:
        """Give it back."""
        await greenlet_spawn(self.connection.close)


async def take(engine: RoutedEngine) -> Taken:
    """Connect as a session does."""
    return Taken(await greenlet_spawn(engine.connect))


async def ended(*tasks: asyncio.Task[Any]) -> list[Any]:
    """The results or errors of these tasks, cancelled."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)
