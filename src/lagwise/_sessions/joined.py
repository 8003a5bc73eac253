"""All sessions of a Router in one transaction, which is rolled back: for tests of an application."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise._client.causality import Causality
from lagwise._decide.route import Reason, Route
from lagwise._nodes.intent import Intent
from lagwise._nodes.ledger import Ledger
from lagwise._nodes.nodes import Nodes
from lagwise._pools.engine import RoutedEngine
from lagwise._pools.joined import Joined
from lagwise._sessions.lease import ROUTE, Lease
from lagwise._sessions.maker import RoutingSessionMaker


class JoinedLease(Lease):
    """A session's claim to the one connection. Its client learns of no position, as nothing is committed."""

    def __init__(
        self,
        joined: Joined,
        nodes: Nodes,
        ledger: Ledger,
        intent: Intent,
        seen: Causality | None,
        info: dict[Any, Any],
    ) -> None:
        super().__init__(nodes, ledger, intent, None, info)
        self._joined = joined
        self._client = seen

    async def place(self) -> RoutedEngine:
        """The engine of the one connection: on the primary, as with no replicas."""
        if self.engine is None:
            joined, intent = self._joined, self.intent
            reason = Reason.WRITE if intent.write else intent.strong or Reason.NO_REPLICAS
            self.route = self._info[ROUTE] = Route(joined.pools.name, reason)
            self.engine = joined.writes if intent.write else joined.reads
            if self._client is not None:
                self._client.routes.append(self.route)
        return self.engine

    def leave_failed_node(self, error: Exception) -> bool:
        """No: there is no other connection."""
        return False


@asynccontextmanager
async def one_transaction(nodes: Nodes, makers: Iterable[RoutingSessionMaker]) -> AsyncIterator[None]:
    """Let all sessions share one connection in one transaction on the primary, which is rolled back at the end.

    Inside another such block: a savepoint.

    Raises:
        ValueError: the database is not PostgreSQL.
        NoPrimary: there is none.
        RoutingError: a session is open at the end.
    """
    makers = tuple(makers)
    joined = makers[0].joined
    if joined is not None:
        savepoint = await joined.nest()
        try:
            yield
        finally:
            await joined.unnest(savepoint)
        return
    if nodes.default_engine.dialect.driver != "asyncpg":
        raise ValueError("rolled_back needs PostgreSQL (postgresql+asyncpg://...)")
    chosen = await nodes.choose(Intent(write=True), None, holder=makers)
    pools = nodes.pools[chosen.node or ""]
    joined = Joined(pools, await greenlet_spawn(pools.writes.connect))
    try:
        await joined.begin()
        leases: Callable[..., Lease] = partial(JoinedLease, joined)
        for maker in makers:
            maker.join(joined, leases)
        try:
            yield
        finally:
            for maker in makers:
                maker.join(None, Lease)
    except BaseException as error:
        try:
            await joined.end()
        except Exception as problem:
            error.add_note(str(problem))
        raise
    await joined.end()
