"""The driver's own connection, asyncpg's, from the same pools and with the same promises."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lagwise._sessions.driver_routing import DriverRouting
from lagwise._sessions.lease import Lease
from lagwise._sessions.lent import LentConnection


@asynccontextmanager
async def reading(lease: Lease) -> AsyncIterator[Any]:
    """A connection that reads, on the chosen node; it is taken with the first statement."""
    async with _lent(lease) as (_, connection):
        yield connection


@asynccontextmanager
async def writing(lease: Lease) -> AsyncIterator[Any]:
    """A connection on the primary, in a transaction that is committed when the block succeeds."""
    async with _lent(lease) as (routing, connection):
        yield connection
        await routing.commit()


@asynccontextmanager
async def _lent(lease: Lease) -> AsyncIterator[tuple[DriverRouting, LentConnection]]:
    routing = DriverRouting(lease)
    await routing.enter()
    connection = LentConnection(routing)
    try:
        yield routing, connection
    finally:
        connection.take_back()
        await routing.leave()
