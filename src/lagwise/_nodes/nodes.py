"""The nodes of a Router: where a session may go, and whether it may stay there."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from weakref import WeakSet

from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._client import known
from lagwise._client.causality import Causality
from lagwise._decide.catalog import BUILT_IN, UNREAD, Catalog
from lagwise._decide.events import Refused, Routed
from lagwise._decide.identity import Terms
from lagwise._decide.refusing import no_place
from lagwise._decide.route import Demand, Route, deposed, less_loaded, limit_reached, route, serves
from lagwise._decide.view import Node, Role, View
from lagwise._nodes.catalog import read_catalog
from lagwise._nodes.choose import choose
from lagwise._nodes.home import Home
from lagwise._nodes.intent import Intent
from lagwise._nodes.member import Member
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.waiting import Wait
from lagwise._nodes.watchers import Watchers
from lagwise._pools.counters import checked_out
from lagwise._pools.pools import Pools
from lagwise._pools.targets import PRIMARY
from lagwise.errors import NotOpen, RoutingError
from lagwise.policy import Policy


class Nodes:
    """The nodes by name. The constructor connects to nothing; the nodes are watched between `start()` and `stop()`."""

    def __init__(self, pools: Mapping[str, Pools], policy: Policy, watchers: Watchers, terms: Terms) -> None:
        self.pools = pools
        self.policy = policy
        self.watchers = watchers
        self._terms = terms
        self.servers: dict[str, Member] = {}
        self._monitor: Monitor | None = None
        self._replicas: dict[str, bool] = {}
        self._drained: set[str] = set()
        self.fallen_back: WeakSet[object] = WeakSet()
        self._open = AsyncExitStack()
        self.home = Home()

    async def start(self) -> None:
        """Connect to every node and watch it.

        Raises:
            RuntimeError: the nodes are watched already.
        """
        if self._monitor is not None:
            raise RuntimeError("this Router is open already; one Router serves the whole application")
        async with AsyncExitStack() as opening:
            opening.push_async_callback(self._close_pools)
            for name, pools in self.pools.items():
                self.servers[name] = Member.of(pools, alone=len(self.pools) == 1, timeout=self.policy.probe_timeout)
            nodes = (Node(name=p.name, weight=p.weight, drained=p.name in self._drained) for p in self.pools.values())
            view = View.of(nodes, terms=self._terms)
            probers = {server.name: server.prober for server in self.servers.values()}
            readers = {server.name: server.pools.traffic for server in self.servers.values()}
            self._monitor = monitor = Monitor(
                view,
                probers,
                self.policy,
                time.monotonic,
                readers,
                tell=self.watchers.tell,
                catalog=UNREAD,
                read_catalog=read_catalog,
                learned=self._learned,
            )
            opening.callback(self._forget)
            for name, traffic in readers.items():
                # What was read when the Router was open before may be over. SQLite has no catalog.
                traffic.learn(UNREAD if self.pools[name].is_postgresql else BUILT_IN)
                traffic.attach(
                    lost=partial(monitor.lost, name),
                    suspect=partial(monitor.suspect, name),
                    relearn=monitor.relearn,
                    in_recovery=partial(self._in_recovery, name),
                    expected=partial(monitor.leads_to, name),
                    connect_timeout=self.policy.connect_timeout,
                    abort_after=self.policy.abort_after,
                )
            known.windows.append(self.policy.sticky_window)
            opening.callback(known.windows.remove, self.policy.sticky_window)
            opening.push_async_callback(monitor.stop)
            await monitor.start()
            self.home.settle()
            for name in readers:
                self._in_recovery(name)
            self._open = opening.pop_all()

    async def stop(self) -> None:
        """Stop watching; close every connection of the Router's own."""
        await self._open.aclose()

    def _forget(self) -> None:
        self._monitor = None
        self.servers.clear()

    @property
    def monitor(self) -> Monitor:
        """The monitor. Raises `NotOpen` unless the Router runs."""
        if self._monitor is None:
            raise NotOpen(
                "the Router is not open: use sessions inside `async with router:`; "
                "in FastAPI pass lifespan=lifespan(router) to the application"
            )
        return self._monitor

    def require_open(self) -> None:
        """Raise `NotOpen` unless the Router runs."""
        _ = self.monitor

    @property
    def view(self) -> View:
        """What is known of the nodes right now."""
        return self.monitor.view

    @property
    def is_open(self) -> bool:
        """Whether the Router runs."""
        return self._monitor is not None

    @property
    def default_engine(self) -> AsyncEngine:
        """The engine of the primary, or of the node configured as primary while there is none."""
        return self.pools[PRIMARY].writing if self._monitor is None else self.engine_to_show()

    def engine_to_show(self) -> AsyncEngine:
        """The default engine, for an application that asks a session for its dialect. Raises `NotOpen`."""
        primary = (self._monitor or self.monitor).view.primary
        return self.pools[PRIMARY if primary is None else primary.name].writing

    def drain(self, name: str, *, drained: bool) -> None:
        """Take a replica out of rotation, or let it back. `KeyError` for an unknown name."""
        if name not in self.pools:
            raise KeyError(f"no node is named {name!r}; there are {', '.join(self.pools)}")
        (self._drained.add if drained else self._drained.discard)(name)
        if self._monitor is not None:
            self._monitor.drain(name, drained=drained)

    def choose_at_once(self, intent: Intent, seen: Causality | None) -> Route | None:
        """The route of a session, unless there is something to wait for, or to refuse.

        Raises:
            NotOpen: the Router is not running, or was opened in another event loop, thread or process.
        """
        monitor, policy = self._monitor or self.monitor, self.policy
        if asyncio.get_running_loop() is not self.home.loop:
            raise self.home.elsewhere()
        view = monitor.view
        demand = intent.plain if seen is None else intent.demand(seen, policy, view)
        chosen = route(view, policy, demand, monitor.clock())
        if chosen.node is None or chosen.fell_back:
            return None
        if chosen.rival is not None:
            chosen = self._less_loaded(chosen.node, chosen.rival, chosen)
        if (routed := self.watchers.routed) is not None:
            if seen is not None:
                self.watchers.meet(seen, chosen.reason)
            routed(chosen, intent.write)
        return chosen

    async def choose(
        self, intent: Intent, seen: Causality | None, *, avoid: frozenset[str] = frozenset(), holder: object
    ) -> Route:
        """Choose the route of a session, without the nodes to `avoid`, and wait where a better View may come.

        `holder` takes one of the `fall_back_limit` places on the primary, until `release(holder)`.

        Raises:
            NoPrimary: there is no primary, and the session needs it.
            NoReplica: no replica is fresh enough, and the policy does not let the read use the primary.
        """
        wait, demand = Wait(self.monitor.clock), partial(intent.demand, seen, self.policy)
        if self.watchers.told is not None:
            self.watchers.meet(seen)
        try:
            chosen = await choose(self.monitor, self.policy, demand, wait, avoid)
            if chosen.node is not None and chosen.rival is not None:
                chosen = self._less_loaded(chosen.node, chosen.rival, chosen)
            if chosen.fell_back and self.policy.fall_back_limit is not None:
                self._take_place(holder, self.policy.fall_back_limit, chosen)
        except RoutingError as error:
            if (tell := self.watchers.told) is not None and self.is_open:
                tell(Refused(error=type(error).__name__, write=intent.write, waited=wait.seconds))
            raise
        if (tell := self.watchers.told) is not None:
            self.watchers.meet(seen, chosen.reason)
            tell(Routed(route=chosen, write=intent.write, waited=wait.seconds))
        return chosen

    def covers(self, chosen: Route, intent: Intent, seen: Causality) -> bool:
        """Whether the node of this route, as last read, has everything that the client has seen by now."""
        view, now = self.view, self.monitor.clock()
        demand = intent.demand_once_open(seen, self.policy, view)
        if not chosen.on_replica:
            return view.primary is not None and view.primary.name == chosen.node and not deposed(view, demand, now)
        alone = view.without(frozenset(self.pools) - {chosen.node or ""})
        return route(alone, self.policy, demand, now).node == chosen.node

    def answers(self, node: str) -> bool:
        """Whether this node has answered its latest probe, and lost no connection since."""
        return self.view.node(node).reading is not None

    def serves(self, *, write: bool) -> bool:
        """Whether a write, or a read without a token, would be served now."""
        monitor = self.monitor
        return serves(monitor.view, self.policy, Demand(write=write), monitor.clock(), len(self.fallen_back))

    def release(self, holder: object) -> None:
        """Free the holder's place on the primary, if it has one."""
        self.fallen_back.discard(holder)

    def _learned(self, catalog: Catalog) -> None:
        for pools in self.pools.values():
            pools.traffic.learn(catalog)

    async def _close_pools(self) -> None:
        """Close the pools of all nodes at the same time: several silent nodes cost one time-out together."""
        closing = (pools.close(self.policy.close_timeout) for pools in self.pools.values())
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if failed is not None:
                raise failed

    def _in_recovery(self, name: str) -> bool:
        reading = self._monitor.view.node(name).reading if self._monitor is not None else None
        if reading is None:  # a node that does not answer keeps the role in which it was last asked for
            return self._replicas.get(name, name != PRIMARY)
        self._replicas[name] = reading.role is Role.REPLICA
        return self._replicas[name]

    def _less_loaded(self, name: str, rival: str, chosen: Route) -> Route:
        one, other = self.pools[name], self.pools[rival]
        load = checked_out(one.reads.pool) / one.weight
        return less_loaded(chosen, load, checked_out(other.reads.pool) / other.weight)

    def _take_place(self, holder: object, limit: int, chosen: Route) -> None:
        if holder not in self.fallen_back and limit_reached(self.policy, len(self.fallen_back)):
            raise no_place(chosen, limit)
        self.fallen_back.add(holder)
