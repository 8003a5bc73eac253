"""The Router: knows the nodes, watches them while it is open, and opens sessions on them."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._client.causality import Causality, Commit, known_windows, whole_seconds
from lagwise._decide.route import Route, route
from lagwise._decide.token import Position
from lagwise._decide.view import Node, Reading, Role, View
from lagwise._nodes.choose import choose
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.positions import Positions
from lagwise._nodes.probe import Prober
from lagwise._pools.pools import PRIMARY, Pools, Replica, Target, pools_of
from lagwise._sessions.lease import Opening
from lagwise._sessions.maker import RoutingSessionMaker
from lagwise.errors import NoReplica, NotOpen
from lagwise.policy import Policy


class Router:
    """Opens sessions on the primary and its replicas; nothing is connected until `async with router:`.

    Args:
        primary: URL or AsyncEngine of the node expected to be the primary. Roles are discovered: whichever
            node is not in recovery gets the writes.
        replicas: name -> URL, AsyncEngine or `Replica(url, weight=2)`; a plain list gets the names
            replica-1, replica-2, ... None at all is fine: every read then runs on the primary, read-only.
        policy: how stale, how long, what otherwise.
        session_options: as for `async_sessionmaker`; `expire_on_commit` is False unless given.
        engine_options: for the engines made from URLs, as for `create_async_engine`.

    Raises:
        ValueError: a setting is missing or makes no sense; the message names it.
    """

    __module__ = "lagwise"

    def __init__(
        self,
        primary: Target,
        replicas: Mapping[str, Target | Replica] | Sequence[Target | Replica] = (),
        *,
        policy: Policy | None = None,
        session_options: Mapping[str, Any] | None = None,
        **engine_options: Any,
    ) -> None:
        self.policy = policy or Policy()
        self._pools = pools_of(primary, replicas, engine_options)
        self._positions: dict[str, Positions] = {}
        self._monitor: Monitor | None = None
        self._open = AsyncExitStack()
        self._drained: set[str] = set()
        self._fallen_back: WeakSet[Opening] = WeakSet()
        options = dict(session_options or {})
        self.read = RoutingSessionMaker(self, write=False, options=options)
        """Sessions that read, from whichever node is fresh enough for this client."""
        self.write = RoutingSessionMaker(self, write=True, options=options)
        """Sessions on the primary."""

    async def __aenter__(self) -> Self:
        if self._monitor is not None:
            raise RuntimeError("this Router is open already; one Router serves the whole application")
        async with AsyncExitStack() as opening:
            alone = len(self._pools) == 1
            probers = {}
            for pools in self._pools.values():
                opening.push_async_callback(pools.close)
                probers[pools.name] = Prober(
                    pools.monitoring, alone=alone, timeout=self.policy.probe_timeout, clock=time.monotonic
                )
            view = View.of(
                Node(name=p.name, weight=p.weight, drained=p.name in self._drained) for p in self._pools.values()
            )
            timeout = self.policy.probe_timeout
            self._positions = {name: Positions(timeout=timeout, clock=time.monotonic) for name in self._pools}
            readers = {name: pools.traffic for name, pools in self._pools.items()}
            self._monitor = monitor = Monitor(view, probers, self.policy, time.monotonic, readers)
            opening.callback(self._forget)
            for pools in self._pools.values():
                pools.traffic.lost = lambda error, name=pools.name: monitor.lost(name, error)  # type: ignore[misc]
            known_windows.append(self.policy.sticky_window)
            opening.callback(known_windows.remove, self.policy.sticky_window)
            opening.push_async_callback(monitor.stop)
            await monitor.start()
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @property
    def view(self) -> View:
        """What is known of the nodes right now; from memory, replaced whole at every reading."""
        return self._running().view

    @property
    def pools(self) -> Mapping[str, Pools]:
        """The pools of each node, by name."""
        return self._pools

    def drain(self, name: str) -> None:
        """Send no more reads to this replica; sessions under way go on. `KeyError` for an unknown name."""
        self._drain(name, drained=True)

    def undrain(self, name: str) -> None:
        """Let a drained replica back into rotation."""
        self._drain(name, drained=False)

    @property
    def monotonic(self) -> bool:
        """Whether a client's reads must never go back in time either."""
        return self.policy.guarantee == "session"

    def require_open(self) -> None:
        """Raise `NotOpen` unless the Router runs."""
        self._running()

    def default_engine(self) -> AsyncEngine:
        """The engine of the primary, or of the node configured as primary while there is none."""
        primary = self._monitor.view.primary if self._monitor is not None else None
        return self._pools[primary.name if primary is not None else PRIMARY].writing

    def choose_at_once(self, opening: Opening) -> tuple[Route, Pools] | None:
        """The route of a session and the pools of its node, unless there is something to wait for, or to say no to."""
        monitor = self._running()
        if opening.avoid:
            return None
        request = opening.intent.request(opening.seen, self.policy, monitor.view)
        chosen = route(monitor.view, self.policy, request, monitor.clock(), load=self._load)
        if chosen.node is None or chosen.reason.falls_back:
            return None
        return chosen, self._pools[chosen.node]

    async def choose(self, opening: Opening) -> tuple[Route, Pools]:
        """The same, and wait for it. Raises `NoPrimary` and `NoReplica`."""
        request = partial(opening.intent.request, opening.seen, self.policy)
        chosen = await choose(self._running(), self.policy, request, self._load, avoid=opening.avoid)
        assert chosen.node is not None
        if chosen.reason.falls_back and self.policy.fall_back_limit is not None:
            self._fall_back(opening, self.policy.fall_back_limit, chosen)
        return chosen, self._pools[chosen.node]

    def covers(self, opening: Opening, node: str) -> bool:
        """Whether this node, as last read, still has everything that the session's client has seen."""
        view, now = self._running().view, self._running().clock()
        if opening.engine is None or not opening.engine.on_replica:
            return view.primary is not None and view.primary.name == node
        alone = view.without(frozenset(self._pools) - {node})
        return route(alone, self.policy, opening.intent.request(opening.seen, self.policy, alone), now).node == node

    def answers(self, node: str) -> bool:
        """Whether this node has answered its latest probe, and lost nobody since."""
        return self._running().view.node(node).reading is not None

    def release(self, opening: Opening) -> None:
        """The session is closed; its place on the primary is free."""
        self._fallen_back.discard(opening)

    async def has_read(self, opening: Opening, node: str) -> None:
        """Remember how much a reader may have seen: what its node had replayed once it had read."""
        if opening.seen is None or self._monitor is None:
            return
        now = self._monitor.clock()
        reading = await self._monitor.after(node, now, now + self.policy.probe_timeout)
        if reading is None:
            position = Position(system=self._monitor.view.system, in_doubt_at=whole_seconds())
        else:
            position = _position(reading)
        opening.seen.saw(position, self.policy.sticky_window)

    def committing(self, node: str, seen: Causality) -> Commit | None:
        """A COMMIT is about to be sent; what has no replicas needs no token."""
        if not self._pools[node].is_postgresql:
            return None
        return seen.committing(self._running().view.system, self.policy.sticky_window)

    async def committed(self, node: str, commit: Commit, driver: Any) -> None:
        """A COMMIT succeeded: any position of the primary asked for from now on covers it."""
        reading = None
        try:
            reading = await self._positions[node].after_commit(driver)
        finally:
            if reading is None or reading.role is not Role.PRIMARY:
                commit.unplaced()
            else:
                commit.at(_position(reading))

    def _running(self) -> Monitor:
        if self._monitor is None:
            raise NotOpen(
                "the Router is not open: use sessions inside `async with router:`; "
                "in FastAPI pass lifespan=lifespan(router) to the application"
            )
        return self._monitor

    def _forget(self) -> None:
        self._monitor = None

    def _load(self, name: str) -> float:
        return self._pools[name].load()

    def _fall_back(self, opening: Opening, limit: int, chosen: Route) -> None:
        if opening not in self._fallen_back and len(self._fallen_back) >= limit:
            raise NoReplica(
                f"no replica may serve this read ({chosen.reason}), and {limit} sessions read from the primary in "
                "their place already (fall_back_limit). Retry when a replica is back, or raise the limit."
            )
        self._fallen_back.add(opening)
        opening.fell_back = True

    def _drain(self, name: str, *, drained: bool) -> None:
        if name not in self._pools:
            raise KeyError(f"no node is named {name!r}; there are {', '.join(self._pools)}")
        (self._drained.add if drained else self._drained.discard)(name)
        if self._monitor is not None:
            self._monitor.drain(name, drained=drained)


def _position(reading: Reading) -> Position:
    return Position(system=reading.system, timeline=reading.timeline, lsn=reading.lsn, issued_at=whole_seconds())
