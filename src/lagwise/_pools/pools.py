"""The pools through which one node is reached."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from time import monotonic
from typing import Any

import sqlalchemy.ext.asyncio as extension
from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from lagwise._pools.connection import PooledConnection
from lagwise._pools.counters import Counters, checked_out
from lagwise._pools.engine import RoutedEngine
from lagwise._pools.framed import FramedConnection
from lagwise._pools.goodbye import say_goodbye
from lagwise._pools.internals import Twin, pool_like
from lagwise._pools.limiting import over_limit, stopped
from lagwise._pools.options import defaults_for, without_isolation
from lagwise._pools.pooling import Pooling
from lagwise._pools.setup import Setup
from lagwise._pools.traffic import Traffic, Users
from lagwise._pools.turns import Turns
from lagwise._pools.witness import STATEMENTS
from lagwise._pools.writing import WritingConnection


class Pools:
    """One node's engines. Made from a URL they are the Router's own; an AsyncEngine stays its owner's.

    Every node has two pools, whatever its role: one for sessions that write, which only a primary fills, and one for
    sessions that read, whose connections the server keeps read-only. Sessions that write use the pool of an
    AsyncEngine itself; for reads, and for the monitor, it has twins.
    """

    def __init__(
        self,
        name: str,
        target: str | URL | AsyncEngine,
        *,
        weight: float,
        options: Mapping[str, Any],
        pooling: Pooling | None = None,
    ) -> None:
        self.name = name
        self.weight = weight
        self.pooling = pooling or Pooling()
        self.traffic = Traffic(name, self.pooling)
        self._given = target if isinstance(target, AsyncEngine) else None
        self._url = target.url if isinstance(target, AsyncEngine) else make_url(target)
        self.is_postgresql = self._url.get_backend_name() == "postgresql"
        """Whether this is a PostgreSQL server: the only kind that has replicas here."""
        if not (self.is_postgresql or self.pooling.keeps):
            raise ValueError(f'pooling="{self.pooling.mode}" needs PostgreSQL, and {name} is none')
        self._options = {**(defaults_for(options) if self.is_postgresql else {}), **options}
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []
        self._engines: list[AsyncEngine] = []
        self._setups: dict[str, Setup] = {}
        # Where one pool serves both roles, sessions of both wait in one line.
        writing, turns = Counters(), Turns()
        self.tallies = {"writing": writing, "reading": Counters() if self.is_postgresql else writing}
        self._turns = {"writing": turns, "reading": Turns() if self.is_postgresql else turns}

    @cached_property
    def monitoring(self) -> AsyncEngine:
        """The engine that the monitor's one connection comes from."""
        engine = self._apart("monitoring")
        if self.is_postgresql:
            setup = Setup(self.traffic, "monitoring")
            self._listening += setup.listen(engine.sync_engine, owned=self._given is not None)
        return engine

    @cached_property
    def writing(self) -> AsyncEngine:
        """The engine of sessions that write."""
        engine = self._given or self._made("writing")
        counters = self.tallies["writing"]
        if self.is_postgresql:
            self._setups["writing"] = Setup(self.traffic, "writing", counters)
        return self._listen(engine, "writing")

    @cached_property
    def reading(self) -> AsyncEngine:
        """The engine of sessions that read: no BEGIN, no ROLLBACK, one round trip; the server refuses writes."""
        if not self.is_postgresql:
            return self.writing
        engine = self._apart("reading")
        self._setups["reading"] = Setup(self.traffic, "reading", self.tallies["reading"])
        return self._listen(engine, "reading")

    @cached_property
    def writes(self) -> RoutedEngine:
        """The engine `writing`, with the routing of sessions: they wait in turn and commit with a position."""
        return self._routed_engine(self.writing, "writing", WritingConnection, reads=False)

    @cached_property
    def reads(self) -> RoutedEngine:
        """The engine `reading`, with the routing of sessions: they wait in turn, and never write."""
        kind = FramedConnection if self.pooling.framed else PooledConnection
        return self._routed_engine(self.reading, "reading", kind, reads=True)

    def _routed_engine(
        self, engine: AsyncEngine, role: str, kind: type[PooledConnection], *, reads: bool
    ) -> RoutedEngine:
        setup = self._setups.get(role)
        routed = RoutedEngine(
            engine.sync_engine, self.traffic, self.tallies[role], self._turns[role], setup, kind=kind, reads=reads
        )
        self.traffic.users.append(Users(routed))
        return routed

    def load(self) -> int:
        """Connections for reads that are in use."""
        return checked_out(self.reads.pool)

    def in_use(self) -> dict[str, AsyncEngine]:
        """The engines that exist so far, by role: writing, reading. SQLite has one for both."""
        # In one look each: metrics are collected in another thread, while the Router may be closing.
        made = {role: engine for role in ("writing", "reading") if (engine := self.__dict__.get(role)) is not None}
        if made.get("reading") is made.get("writing"):
            made.pop("reading", None)
        return made

    async def close(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109
        """Stop listening to the owner's engine, and dispose of the Router's own engines.

        First idle connections are closed, all at the same time, then the pools are disposed of; each of the two may
        take `timeout` seconds. Idle connections that the server does not answer in time are cut off.
        """
        self.traffic.close()
        own = [engine for engine in self._engines if engine is not self._given]
        reserves = [self.__dict__[name].reserve.pool for name in ("reads", "writes") if name in self.__dict__]
        kept = self._setups.get("writing") if self._given is not None else None
        setups = [setup for setup in self._setups.values() if setup is not kept]
        await say_goodbye(setups, self.tallies.values(), timeout)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for engine in own:
                    await engine.dispose()
                for pool in reserves:
                    if pool is not None:
                        await greenlet_spawn(pool.dispose)
        self._leave()

    def _leave(self) -> None:
        for target, name, listener in self._listening:
            if event.contains(target, name, listener):
                event.remove(target, name, listener)
        self._listening.clear()
        self._engines.clear()
        self._setups.clear()
        self.traffic.users.clear()
        for name in [name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def _made(self, role: str) -> AsyncEngine:
        """An engine of the Router's own, as the application has configured it."""
        options = dict(self._options)
        if isinstance(options.get("pool"), Pool):
            options["pool"] = options["pool"].recreate()  # one pool for all roles would have one setup for all
        else:
            options.setdefault("pool_logging_name", f"{self.name}.{role}")
        # Looked up when it is called: instrumentation replaces it, and may come after this import.
        return extension.create_async_engine(self._url, **options)

    def _apart(self, role: str) -> AsyncEngine:
        """An engine without the isolation level that the application has configured for its writes."""
        if not self.is_postgresql:
            return self._given or self._remember(self._made(role))
        if self._given is not None:
            base = self._given.sync_engine
            return self._remember(AsyncEngine(Twin(base, pool_like(base.pool, base.dialect))))
        given, self._options = self._options, without_isolation(self._options)
        try:
            return self._remember(self._made(role))
        finally:
            self._options = given

    def _remember(self, engine: AsyncEngine) -> AsyncEngine:
        self._engines.append(engine)
        return engine

    def _listen(self, engine: AsyncEngine, role: str) -> AsyncEngine:
        self._remember(engine)
        target, turns, counters = engine.sync_engine, self._turns[role], self.tallies[role]

        def returned(_connection: Any, _record: Any) -> None:
            if counters.waiting:
                turns.go_on()

        def opened(_connection: Any, _record: Any) -> None:
            counters.open(monotonic())

        setup = self._setups.get(role)
        if setup is not None:
            self._listening += setup.listen(target, owned=self._given is not None)
        else:
            self._hear(target.pool, "connect", opened)
        self._hear(target.pool, "checkin", returned)
        if self._given is None:
            self._hear_statements(target)
        elif not any(name == "handle_error" for _, name, _ in self._listening):
            self._hear_statements(self._given.sync_engine)  # its twins have its events
        return engine

    def _hear_statements(self, engine: Engine) -> None:
        self._hear(engine, "handle_error", self._failed)
        for name in STATEMENTS if self.is_postgresql else ():
            self._hear(engine, name, self._ran)

    def _hear(self, target: Any, name: str, listener: Callable[..., Any]) -> None:
        event.listen(target, name, listener)
        self._listening.append((target, name, listener))

    def _failed(self, context: ExceptionContext) -> None:
        # The owner's own use of the engine comes here too, and is left alone. Without a connection the engine failed
        # to connect, and reports that itself.
        engine, connection = context.engine, context.connection
        if isinstance(engine, RoutedEngine) and engine.traffic is self.traffic and connection is not None:
            error = context.sqlalchemy_exception or context.original_exception
            if (late := over_limit(error, connection, self.name)) is not None:
                # SQLAlchemy takes every TimeoutError for a connection that is lost.
                context.is_disconnect = not await_only(stopped(connection))  # type: ignore[arg-type]
                context.invalidate_pool_on_disconnect = False
                raise late from context.original_exception
            context.is_disconnect = engine.report_failure(error, connection) or context.is_disconnect
            if (translated := engine.translated(error, connection)) is not None:
                raise translated from context.original_exception

    def _ran(self, _cursor: Any, statement: str, *rest: Any) -> None:
        # An event of the dialect, not of the engine: with listeners of an engine's events, every new Connection joins
        # the listeners of engine and connection again, which costs more than all the rest of this class.
        connection: Any = rest[-1].root_connection
        try:
            ours = connection.engine.traffic is self.traffic
        except AttributeError:  # the owner's own use
            return
        if ours and not connection.watched:  # otherwise a Witness hears it
            connection.note(statement)
