"""The driver's own connection, asyncpg's, from the same pools and with the same promises."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from lagwise._sessions.driver_routing import DriverRouting
from lagwise._sessions.lease import Lease
from lagwise._sessions.lent import LentConnection
from lagwise.errors import RoutingError


class DriverBlock(AbstractAsyncContextManager[Any]):
    """Lends a connection for one block. One that reads comes from its pool with the first statement.

    One that writes comes in a transaction, which is committed when the block succeeds.
    """

    _lent: LentConnection | None = None

    def __init__(self, lease: Lease) -> None:
        self._routing = DriverRouting(lease)

    async def __aenter__(self) -> Any:
        if self._lent is not None:
            raise RoutingError("asyncpg() is for one block: call it anew for the next one")
        routing = self._routing
        self._lent = lent = LentConnection(routing)
        await routing.enter()
        if routing.begins:
            await routing.begin()
        return lent

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        routing, lent = self._routing, self._lent
        assert lent is not None
        try:
            if kind is None and routing.lease.intent.write:
                await routing.commit()
        finally:
            lent.take_back()
            await routing.leave()
