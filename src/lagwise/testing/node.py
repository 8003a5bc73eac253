"""One node of a test cluster: a server, the proxy clients come through, and the link it replicates over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import asyncpg  # type: ignore[import-untyped]

from lagwise.testing.backend import Address, Server, Upstream
from lagwise.testing.proxy import Proxy

T = TypeVar("T")

# The server, or only this session, has ended.
_ENDED = (OSError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError, asyncpg.PostgresConnectionError)
_TRIES = 20  # each replays up to the next conflict


def slot_of(name: str) -> str:
    """The replication slot of a node: ``replica_1``."""
    return name.replace("-", "_")


class Row(Protocol):
    """A row, by column name or by number."""

    def __getitem__(self, column: str | int) -> Any:
        """One value."""
        ...


class Connection(Protocol):
    """The part of an asyncpg connection that is used here; asyncpg itself is not typed."""

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row; None without a row."""
        ...

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """The first row, if there is one."""
        ...

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """All rows."""
        ...

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement; the command tag."""
        ...


async def undisturbed(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of a lone statement. A replica that catches up may cancel any (40001): the statement is then repeated.

    Most of all when a long pause ends: the WAL is then older than max_standby_streaming_delay (30 s), and what
    conflicts with it is cancelled at once.
    """
    for _ in range(_TRIES - 1):
        with suppress(asyncpg.SerializationError):
            return await ask()
    return await ask()


@dataclass(frozen=True, slots=True)
class Login:
    """The superuser every URL uses, and the database it opens."""

    user: str
    password: str = field(repr=False)
    database: str = "app"

    def upstream(self, name: str, address: Address) -> Upstream:
        """What the node called ``name`` follows, reached at ``address``."""
        return Upstream(
            address=address, slot=slot_of(name), user=self.user, password=self.password, application_name=name
        )


class Node:
    """A server under a name that stays with it, whatever role it has.

    Attributes:
        name: ``primary`` or ``replica-1``, ``replica-2``, ...: the role it was made with.
        proxy: What ``url`` goes through: break the clients' network here.
        link: What its own WAL receiver goes through: break replication here.
        upstream: The node it follows; None for a primary.
    """

    def __init__(self, name: str, server: Server, proxy: Proxy, link: Proxy, login: Login) -> None:
        self.name = name
        self.server = server
        self.proxy = proxy
        self.link = link
        self.upstream: Node | None = None
        self._login = login
        self._kept: tuple[asyncio.AbstractEventLoop, Any] | None = None

    def __repr__(self) -> str:
        state = "running" if self.server.running else "stopped"
        role = "primary" if self.upstream is None else f"replica of {self.upstream.name}"
        return f"<Node {self.name}: {role}, {state}, {self.proxy.address.host}:{self.proxy.address.port}>"

    @property
    def url(self) -> str:
        """The SQLAlchemy URL through the proxy; stays the same across stop, start and promotion."""
        return self._url(self.proxy.address)

    @property
    def direct_url(self) -> str:
        """The SQLAlchemy URL past the proxy: not counted, not broken."""
        return self._url(self.server.address)

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self.server.running

    def attach(self, upstream: Node) -> None:
        """Let the link lead to ``upstream``, from its next connection on."""
        self.upstream = upstream
        self.link.target = upstream.server.address

    def detach(self) -> None:
        """It streams from no other node any more: it was promoted."""
        self.upstream = None

    @asynccontextmanager
    async def connect(self, database: str | None = None) -> AsyncIterator[Connection]:
        """A direct asyncpg connection, closed at the end."""
        connection = await self._connect(database or self._login.database)
        try:
            yield cast("Connection", connection)
        finally:
            await connection.close(timeout=5)

    async def ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """The answer of a question of the cluster's own, which may be asked twice and leaves nothing behind.

        Its session is kept for the next one: to open one takes a hundred times as long as what is asked.
        """
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] is asyncio.get_running_loop() and not kept[1].is_closed():
            with suppress(*_ENDED):
                return await self._keep(kept[1], question)
        return await self._keep(await self._connect(self._login.database), question)

    async def close(self) -> None:
        """End the session that is kept."""
        kept, self._kept = self._kept, None
        if kept is not None and not kept[0].is_closed():
            kept[1].terminate()

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first column of the first row, asked of the server itself; None without a row."""
        async with self.connect() as connection:
            return await undisturbed(lambda: connection.fetchval(sql, *args))

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """All rows, asked of the server itself."""
        async with self.connect() as connection:
            return await undisturbed(lambda: connection.fetch(sql, *args))

    async def execute(self, sql: str, *args: object) -> str:
        """Run a statement on the server itself; without arguments also several, separated by semicolons."""
        async with self.connect() as connection:
            return await undisturbed(lambda: connection.execute(sql, *args))

    async def _connect(self, database: str) -> Any:
        host, port = self.server.address
        return await asyncpg.connect(
            host=host, port=port, user=self._login.user, password=self._login.password,
            database=database, ssl=False, timeout=10, command_timeout=60,
            server_settings={"application_name": "lagwise.testing"},
        )  # fmt: skip

    async def _keep(self, connection: Any, question: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            answer = await undisturbed(lambda: question(connection))
        except BaseException:
            connection.terminate()
            raise
        if self._kept is None and not connection.is_closed():
            self._kept = asyncio.get_running_loop(), connection
        else:  # another question was asked meanwhile
            connection.terminate()
        return answer

    def _url(self, address: Address) -> str:
        login = self._login
        return f"postgresql+asyncpg://{login.user}:{login.password}@{address.host}:{address.port}/{login.database}"


def reroute(nodes: Iterable[Node], started: Node) -> None:
    """Point the proxies of ``nodes`` at one of them that may have come back on another port."""
    started.proxy.target = started.server.address
    for node in nodes:
        if node.upstream is started:
            node.link.target = started.server.address
