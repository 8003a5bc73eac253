"""What the caller of `asyncpg()` holds: the driver's connection, for one statement or for the whole block."""

from collections.abc import Callable
from functools import partial
from typing import Any

from asyncpg import InterfaceError  # type: ignore[import-untyped]

from lagwise._pools.driver import driver_of
from lagwise._pools.writing import WritingConnection
from lagwise._sessions.driver_routing import DriverRouting
from lagwise.errors import RoutingError

# Methods that run one SQL text and return all of its result: they may run again on another node.
_STATEMENTS = frozenset({"execute", "fetch", "fetchrow", "fetchval", "fetchmany"})
# Methods that only ask the driver.
_QUESTIONS = frozenset({"get_server_pid", "get_server_version", "get_settings", "is_closed", "is_in_transaction"})
# Methods that are awaited, and may have returned something before they failed. These, a transaction and a cursor
# leave nothing in the driver, and in the server only what a reset undoes.
_CALLS = frozenset({
    "copy_from_query", "copy_from_table", "copy_records_to_table", "copy_to_table", "executemany", "prepare",
})  # fmt: skip
# The methods whose first argument is SQL, with the name of that argument.
_TEXTS = {"copy_from_query": "query", "executemany": "command", "prepare": "query"}
# Methods that are awaited, and change the driver in ways that cannot be undone.
_CHANGES = frozenset({
    "close", "reload_schema_state", "reset", "reset_type_codec", "set_builtin_type_codec", "set_type_codec",
})  # fmt: skip
_NO_WITHOUT = frozenset({"is_closed", "is_in_transaction"})
# Methods that need LISTEN, which takes effect when its transaction commits.
_NEVER_HEARD = frozenset({"add_listener", "remove_listener"})


class LentConnection:
    """asyncpg's Connection for as long as the block lasts, with all its methods."""

    def __init__(self, routing: DriverRouting) -> None:
        self._routing: DriverRouting | None = routing

    def take_back(self) -> None:
        """End the lending: the block has ended."""
        self._routing = None

    def __getattr__(self, name: str) -> Any:
        routing = self._routing
        if routing is None:
            raise InterfaceError(
                f"cannot use {name}: this connection went back to its pool when its block ended. A stream or a "
                "background task borrows its own: `async with db.read.asyncpg() as connection`."
            )
        if name in _STATEMENTS:
            return partial(self._run, routing, name)
        if name in _CALLS:
            return partial(self._call, routing, name)
        if name == "cursor":
            return partial(self._cursor, routing)
        if name == "transaction":
            return partial(_TransactionOfTheCallers, routing)
        if name in _NEVER_HEARD:
            raise RoutingError(
                f"{name}() on a pooled connection would never hear: LISTEN takes effect when a transaction "
                "commits, and the connection goes back then. Listen on a connection of your own, asyncpg.connect(), to "
                "the primary."
            )
        if name in _CHANGES:
            return partial(self._change, routing, name)
        return _of_the_driver(routing, name)

    async def _run(self, routing: DriverRouting, name: str, query: str, *args: Any, **kw: Any) -> Any:
        try:
            found = await routing.run(partial(routing.run_text, name, query, *args, **kw))
        except Exception:
            await routing.end_frame()
            raise
        await routing.rest()
        return found

    async def _call(self, routing: DriverRouting, name: str, *args: Any, **kw: Any) -> Any:
        async def call() -> Any:
            if name in _TEXTS:
                await routing.prepare_for(args[0] if args else kw.get(_TEXTS[name], ""))
            if not routing.lease.intent.write or name not in _TEXTS:  # without a text: a trigger's, or a policy's, code
                routing.connection.touched = True
            if name == "prepare":
                routing.lease.hold()
                if isinstance(routing.connection, WritingConnection):
                    routing.connection.lent = True  # what runs it is not seen
            if (limit := routing.lease.intent.timeout) is not None:
                routing.connection.restrict(kw.get("timeout") or limit)
            run = getattr(driver_of(routing.connection), name)
            return await routing.translating_errors(partial(run, *args, **kw), routing.connection)

        return await routing.run_unretried(call)

    def _cursor(self, routing: DriverRouting, query: str, *args: Any, **kw: Any) -> Any:
        opened = _of_the_driver(routing, "cursor")
        routing.judge(query)
        return opened(query, *args, **kw)

    async def _change(self, routing: DriverRouting, name: str, *args: Any, **kw: Any) -> Any:
        async def call() -> Any:
            routing.hold(spoil=True)
            return await getattr(driver_of(routing.connection), name)(*args, **kw)

        return await routing.run_unretried(call)


def _of_the_driver(routing: DriverRouting, name: str) -> Any:
    connection = routing.lease.connection
    if connection is not None:
        found = getattr(driver_of(connection), name)
        if name not in _QUESTIONS:
            routing.hold(spoil=name != "cursor")
        return found
    if name in _NO_WITHOUT:
        return lambda: False
    raise InterfaceError(
        f"cannot use {name}: between two statements this block has no connection; "
        "use it inside `async with connection.transaction():`, which holds one"
    )


class _TransactionOfTheCallers:
    """A transaction of the caller's, on a node that has the client's writes; until it ends the connection stays."""

    def __init__(self, routing: DriverRouting, *args: Any, **kw: Any) -> None:
        self._routing = routing
        self._options = args, kw
        self._own: Any = None
        self._framed = False

    async def start(self) -> None:
        """Begin."""
        await self._routing.run_unretried(partial(self._begin, "start"))

    async def __aenter__(self) -> None:
        await self._routing.run_unretried(partial(self._begin, "__aenter__"))

    async def _begin(self, how: str) -> None:
        routing, (args, kw) = self._routing, self._options
        if self._own is None:
            driver = driver_of(routing.connection)
            if routing.frames_transactions and not driver.is_in_transaction():
                # No fence makes it READ ONLY, and at its end nothing must stay.
                kw = {"isolation": "read_committed", **kw, "readonly": True}
                self._framed = True
            routing.take_over()
            self._own = driver.transaction(*args, **kw)
        how = "start" if self._framed else how
        await routing.translating_errors(getattr(self._own, how), routing.connection)
        routing.enter_block()

    async def __aexit__(self, *error: Any) -> None:
        await self._end("__aexit__", *error)

    async def commit(self) -> None:
        """Commit and end the transaction."""
        await self._end("commit")

    async def rollback(self) -> None:
        """Roll the transaction back."""
        await self._end("rollback")

    async def _end(self, how: str, *error: Any) -> None:
        if self._own is None:
            raise InterfaceError(f"cannot use {how}: the transaction is not yet started")
        self._routing.leave_block()
        if (connection := self._routing.lease.connection) is not None:
            connection.awaited = True
        how, error = ("rollback", ()) if self._framed else (how, error)
        try:
            await getattr(self._own, how)(*error)
        finally:
            if connection is not None:
                connection.awaited = False
            await self._routing.keep_fenced()
        await self._routing.rest()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._own is None:
            raise InterfaceError(f"cannot use {name}: the transaction is not yet started")
        found: Callable[..., Any] = getattr(self._own, name)
        return found
