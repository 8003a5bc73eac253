"""The pools through which one node is reached, and the ways of using them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool

from lagwise._pools.connection import BorrowedConnection, PooledConnection, WritingConnection
from lagwise._pools.counters import Tally, checked_out
from lagwise._pools.engine import RoutedEngine, Traffic

Target = str | URL | AsyncEngine
PRIMARY = "primary"
_ROLES = ("writing", "reading")
_STATEMENTS = ("do_execute", "do_executemany", "do_execute_no_params")
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
# Measured with asyncpg: SQLAlchemy's default of 5 + 10 opens and closes a connection per request under load.
DEFAULTS: Mapping[str, Any] = {"pool_size": 20, "max_overflow": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica with more to say than its URL: `weight=2` takes twice the share of reads of `weight=1`."""

    __module__ = "lagwise"

    url: str | URL | AsyncEngine = field(repr=False)  # it may hold a password
    weight: float = 1.0

    def __init__(self, url: str | URL | AsyncEngine, *, weight: float = 1.0) -> None:
        if not (isinstance(weight, int | float) and 0 < weight < float("inf")):
            raise ValueError(f"weight must be a number above 0, not {weight!r}; to stop reads use db.drain(name)")
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "weight", float(weight))


class Pools:
    """One node's engines. Made from a URL they are the Router's own; an AsyncEngine stays its owner's.

    A node may change its role, so it has a pool to read from as a replica and one to write to as the
    primary; the one it does not need stays empty.
    """

    def __init__(
        self,
        name: str,
        target: str | URL | AsyncEngine,
        *,
        weight: float,
        configured_primary: bool,
        options: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.weight = weight
        self.tallies = {role: Tally() for role in _ROLES}
        self.traffic = Traffic(name)
        self._given = target if isinstance(target, AsyncEngine) else None
        self._url = target.url if isinstance(target, AsyncEngine) else make_url(target)
        if self.is_postgresql and self._url.get_driver_name() != "asyncpg":
            raise ValueError(
                f"{name} uses the driver {self._url.get_driver_name()}; lagwise reads PostgreSQL's positions "
                "through asyncpg: write postgresql+asyncpg://..."
            )
        self._configured_primary = configured_primary
        self._template: Pool | None = None
        self._options = {**(DEFAULTS if self.is_postgresql else {}), **options}
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []

    @property
    def is_postgresql(self) -> bool:
        """Whether this is a PostgreSQL server: the only kind that has replicas here."""
        return self._url.get_backend_name() == "postgresql"

    @cached_property
    def monitoring(self) -> AsyncEngine:
        """The engine that the monitor's one connection comes from."""
        if self._given is not None:
            return self._twin(self._given)
        return create_async_engine(self._url, **self._options)

    @cached_property
    def writing(self) -> AsyncEngine:
        """The engine of the primary's role."""
        if self._given is not None:
            return self._listen(self._given if self._configured_primary else self._twin(self._given), "writing")
        return self._listen(create_async_engine(self._url, **self._options), "writing")

    @cached_property
    def reading(self) -> AsyncEngine:
        """The engine of the replica's role: no BEGIN, no ROLLBACK, one round trip."""
        if self._given is not None:
            return self._listen(self._twin(self._given) if self._configured_primary else self._given, "reading")
        options = {**self._options, "isolation_level": "AUTOCOMMIT"}
        return self._listen(create_async_engine(self._url, **options), "reading")

    @cached_property
    def writes(self) -> RoutedEngine:
        """Sessions that may write."""
        return self._way(self.writing, {}, writes=True)

    @cached_property
    def replica_reads(self) -> RoutedEngine:
        """Reads on a replica, statement by statement."""
        options = {} if self._given is None else {"isolation_level": "AUTOCOMMIT"}
        return self._way(self.reading, options, on_replica=True)

    @cached_property
    def replica_snapshots(self) -> RoutedEngine:
        """Reads on a replica, in one snapshot."""
        return self._way(self.reading, _SNAPSHOT, on_replica=True)

    @cached_property
    def primary_reads(self) -> RoutedEngine:
        """Reads on the primary, in a transaction that refuses writes."""
        options = {"isolation_level": "READ COMMITTED", "postgresql_readonly": True} if self.is_postgresql else {}
        return self._way(self.writing, options)

    @cached_property
    def primary_snapshots(self) -> RoutedEngine:
        """Reads on the primary, in one snapshot."""
        options = _SNAPSHOT if self.is_postgresql else {}
        return self._way(self.writing, options)

    def _way(
        self, engine: AsyncEngine, options: Mapping[str, Any], *, writes: bool = False, on_replica: bool = False
    ) -> RoutedEngine:
        tally = self.tallies["reading" if on_replica else "writing"]
        reads = BorrowedConnection if engine is self._given else PooledConnection
        kind = WritingConnection if writes else reads
        return RoutedEngine(engine.sync_engine, options, self.traffic, tally, kind=kind, on_replica=on_replica)

    def load(self) -> int:
        """Sessions in flight that hold a connection for reads."""
        return checked_out(self.reading.sync_engine.pool)

    def in_use(self) -> dict[str, AsyncEngine]:
        """The engines that exist so far, by role: writing, reading."""
        return {role: self.__dict__[role] for role in _ROLES if role in self.__dict__}

    async def close(self) -> None:
        """Stop listening to the owner's engine and dispose of the Router's own."""
        for target, name, listener in self._listening:
            event.remove(target, name, listener)
        self._listening.clear()
        for engine in (*self.in_use().values(), self.monitoring):
            if engine is not self._given:
                await engine.dispose()
        for name in [name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def _twin(self, engine: AsyncEngine) -> AsyncEngine:
        """An engine like the owner's, with its connect arguments and credentials callbacks, and a pool apart."""
        return create_async_engine(engine.url, pool=self._blank(engine).recreate())

    def _blank(self, engine: AsyncEngine) -> Pool:
        """The owner's pool as it came: a pool made from a listened-to one would inherit our listeners."""
        if self._template is None:
            self._template = engine.sync_engine.pool.recreate()
        return self._template

    def _listen(self, engine: AsyncEngine, role: str) -> AsyncEngine:
        owned, tally = engine is not self._given, self.tallies[role]
        if not owned:
            self._blank(engine)

        def opened(_connection: Any, _record: Any) -> None:
            tally.open(monotonic())

        listeners: list[tuple[Any, str, Callable[..., Any]]] = [
            (engine.sync_engine.pool, "connect", opened),
            (engine.sync_engine, "handle_error", self._failed),
            *((engine.sync_engine, name, self._ran) for name in _STATEMENTS if self.is_postgresql),
        ]
        for target, name, listener in listeners:
            ours = listener if owned else _apart(listener)
            event.listen(target, name, ours)
            self._listening.append((target, name, ours))
        return engine

    def _failed(self, context: ExceptionContext) -> None:
        # The listener sees the owner's own use of the engine too; that is not ours to judge.
        engine, connection = context.engine, context.connection
        if isinstance(engine, RoutedEngine) and engine.traffic is self.traffic:
            error = context.sqlalchemy_exception or context.original_exception
            context.is_disconnect = engine.lost_by(error, connection) or context.is_disconnect
            if (named := engine.named(error, connection)) is not None:
                raise named from context.original_exception

    def _ran(self, _cursor: Any, statement: str, *rest: Any) -> None:
        # An event of the dialect's, not of the engine's: for the sake of those, every connection joins the
        # listeners of engine and connection anew, which costs more than everything else here together.
        connection = rest[-1].root_connection
        if isinstance(connection, PooledConnection):
            connection.note(statement)


def _apart(listener: Callable[..., Any]) -> Callable[..., Any]:
    """The same listener as one of its own: two Routers may share an engine, and one of them be closed."""

    def heard(*args: Any) -> Any:
        return listener(*args)

    return heard


def pools_of(
    primary: Target,
    replicas: Mapping[str, Target | Replica] | Sequence[Target | Replica],
    options: Mapping[str, Any],
) -> dict[str, Pools]:
    """The nodes by name, as configured. Raises `ValueError` for a setting that makes no sense."""
    if not primary:
        raise ValueError("primary is missing: give the URL or the AsyncEngine of the primary")
    if isinstance(replicas, str | URL):
        raise ValueError("replicas must be a mapping of names, or a list, of URLs or engines, not a single URL")
    if not isinstance(replicas, Mapping):
        replicas = {f"replica-{number}": one for number, one in enumerate(replicas, 1)}
    if PRIMARY in replicas:
        raise ValueError('"primary" is the name of the primary: give the replica another name')
    pools = {PRIMARY: Pools(PRIMARY, primary, weight=1.0, configured_primary=True, options=options)}
    for name, one in replicas.items():
        given = one if isinstance(one, Replica) else Replica(one)
        pools[name] = Pools(name, given.url, weight=given.weight, configured_primary=False, options=options)
    if len(pools) > 1 and not all(node.is_postgresql for node in pools.values()):
        raise ValueError(
            "replicas need PostgreSQL (postgresql+asyncpg://...) on every node; without replicas any database will do"
        )
    return pools
