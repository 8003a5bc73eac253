"""What the caller of `asyncpg()` holds: the driver's connection for as long as the block lasts."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from asyncpg import InterfaceError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection

from lagwise._pools.driver import driver_of

# What runs one SQL text and returns everything it found: it may be run again elsewhere.
_STATEMENTS = frozenset({"execute", "fetch", "fetchrow", "fetchval", "fetchmany"})
# What only asks the driver.
_QUESTIONS = frozenset({"get_server_pid", "get_server_version", "get_settings", "is_closed", "is_in_transaction"})
# What is awaited, and may have handed something out before it failed. These, a transaction and a cursor leave
# nothing in the driver, and in the server only what a reset undoes.
_CALLS = frozenset({
    "copy_from_query", "copy_from_table", "copy_records_to_table", "copy_to_table", "executemany", "prepare",
})  # fmt: skip


class Lending(Protocol):
    """What stands behind it: the visit that keeps the promise."""

    held: bool
    transaction: Any

    @property
    def connection(self) -> Connection:
        """The connection of the moment."""
        ...

    def note(self, statement: str = "") -> None:
        """Note what may outlive a read."""

    def hold(self, *, spoil: bool) -> None:
        """The caller takes hold of this very connection."""

    async def run(self, statement: Callable[[], Awaitable[Any]]) -> Any:
        """Run a statement where its client's writes are; the first one where it succeeds."""

    async def once(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run what is the caller's own, where its client's writes are."""

    async def named(self, call: Any, connection: Connection) -> Any:
        """Await `call()`, and name its failure."""


class LentConnection:
    """asyncpg's Connection for as long as the block lasts, with all its methods."""

    def __init__(self, visit: Lending) -> None:
        self._visit: Lending | None = visit

    def take_back(self) -> None:
        """The block has ended."""
        self._visit = None

    def __getattr__(self, name: str) -> Any:
        visit = self._visit
        if visit is None:
            raise InterfaceError(f"cannot use {name}: this connection went back to its pool when its block ended")
        if name in _STATEMENTS:
            return partial(self._run, visit, name)
        if name in _CALLS:
            return partial(self._call, visit, name)
        if name == "transaction":
            return partial(_Block, visit)
        found = getattr(driver_of(visit.connection), name)
        if name not in _QUESTIONS:
            visit.hold(spoil=name != "cursor")
        return found

    async def _run(self, visit: Lending, name: str, query: str, *args: Any, **kw: Any) -> Any:
        async def statement() -> Any:
            visit.note(query)
            run = getattr(driver_of(visit.connection), name)
            return await visit.named(partial(run, query, *args, **kw), visit.connection)

        return await visit.run(statement)

    async def _call(self, visit: Lending, name: str, *args: Any, **kw: Any) -> Any:
        async def call() -> Any:
            visit.note()
            visit.held = visit.held or name == "prepare"
            run = getattr(driver_of(visit.connection), name)
            return await visit.named(partial(run, *args, **kw), visit.connection)

        return await visit.once(call)


class _Block:
    """A transaction of the caller's: begun where its client's writes are, and until it ends this connection stays."""

    def __init__(self, visit: Lending, *args: Any, **kw: Any) -> None:
        self._visit = visit
        self._options = args, kw
        self._own: Any = None

    async def start(self) -> None:
        """Begin."""
        await self._visit.once(partial(self._begin, "start"))

    async def __aenter__(self) -> None:
        await self._visit.once(partial(self._begin, "__aenter__"))

    async def _begin(self, how: str) -> None:
        visit, (args, kw) = self._visit, self._options
        visit.note()
        visit.held = visit.held or visit.transaction is not None
        if self._own is None:
            self._own = driver_of(visit.connection).transaction(*args, **kw)
        await visit.named(getattr(self._own, how), visit.connection)

    async def __aexit__(self, *error: Any) -> None:
        await self._own.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        if self._own is None:
            raise InterfaceError(f"cannot use {name}: the transaction is not yet started")
        return getattr(self._own, name)
