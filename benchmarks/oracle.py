"""The oracle: whether some replica could have served a read the moment it began, asked of the replicas themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from lagwise.testing.cluster import Cluster
from lagwise.testing.node import Connection

_AT_ONCE = 8  # connections to each replica: an oracle that queues would answer for a later moment


class Oracle:
    """Knows what no router can know for free: how far each replica has replayed right now.

    It has connections of its own, past proxies and pools, and its query is the cheapest there is. Asked in the same
    turn of the event loop in which a read begins, it is answered a little later than the read is routed. A replica
    that gets there in between counts for the oracle: what doubt there is, is to the disadvantage of the contestants.
    """

    def __init__(self, replicas: list[asyncio.LifoQueue[Connection]]) -> None:
        self._replicas = replicas

    async def had(self, floor: int) -> bool:
        """Whether some replica has replayed `floor`."""
        return max(await asyncio.gather(*map(_replayed, self._replicas))) >= floor


async def _replayed(connections: asyncio.LifoQueue[Connection]) -> int:
    connection = await connections.get()
    try:
        # asyncpg returns a pg_lsn as a number.
        return int(await connection.fetchval("SELECT pg_last_wal_replay_lsn()"))
    finally:
        connections.put_nowait(connection)


@asynccontextmanager
async def oracle(cluster: Cluster) -> AsyncIterator[Oracle]:
    """An oracle for the replicas of this cluster."""
    async with AsyncExitStack() as stack:
        replicas = []
        for node in cluster.replicas:
            queue: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
            for _ in range(_AT_ONCE):
                queue.put_nowait(await stack.enter_async_context(node.connect()))
            replicas.append(queue)
        yield Oracle(replicas)
