"""asyncpg's connection before a pooler in transaction mode: it refuses whatever would be left to a stranger."""

from typing import Any

from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from lagwise._pools.internals import UnnamedStatements
from lagwise._pools.placing import PlacingDriver
from lagwise._pools.pooling import OfTransactions

_POOLING = OfTransactions()


class GuardingDriver(UnnamedStatements, PlacingDriver):
    """Every statement is judged before it is sent, also one of a `connect` listener or of the application."""

    __slots__ = ()

    async def execute(self, query: str, *args: Any, **kw: Any) -> str:
        """As `asyncpg.Connection.execute`. Raises `RoutingError` for what outlives its transaction."""
        _refuse(query)
        status: str = await super().execute(query, *args, **kw)
        return status

    async def executemany(self, command: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.executemany`, likewise."""
        _refuse(command)
        return await super().executemany(command, *args, **kw)

    async def fetch(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.fetch`, likewise."""
        _refuse(query)
        return await super().fetch(query, *args, **kw)

    async def fetchrow(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.fetchrow`, likewise."""
        _refuse(query)
        return await super().fetchrow(query, *args, **kw)

    async def fetchval(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.fetchval`, likewise."""
        _refuse(query)
        return await super().fetchval(query, *args, **kw)

    async def fetchmany(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.fetchmany`, likewise."""
        _refuse(query)
        return await super().fetchmany(query, *args, **kw)

    async def prepare(self, query: str, **kw: Any) -> Any:
        """As `asyncpg.Connection.prepare`, likewise; the statement has no name, and its transaction is its life."""
        _refuse(query)
        return await super().prepare(query, **kw)

    def cursor(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.cursor`, likewise."""
        _refuse(query)
        return super().cursor(query, *args, **kw)

    async def add_listener(self, channel: str, callback: Any) -> None:
        """Raise `RoutingError`: LISTEN would be another client's."""
        _POOLING.refuse(Effect.TOUCHES)


def _refuse(query: str) -> None:
    _POOLING.refuse(effects_of(query))
