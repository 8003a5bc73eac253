"""A real primary with streaming replicas for tests and demos, and the faults that a test can cause."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Self

from lagwise.testing import replication
from lagwise.testing.backend import Backend, setting
from lagwise.testing.binaries import Binaries
from lagwise.testing.choice import choose_backend
from lagwise.testing.errors import ClusterError
from lagwise.testing.node import Login, Node, reroute
from lagwise.testing.proxy import Proxy
from lagwise.testing.threads import blocking, together

Which = str | Node  # a node, or its name


class Cluster:
    """``async with Cluster(replicas=2) as cluster``: a primary, N streaming standbys, a proxy before each.

    Real PostgreSQL from the first of: ``LAGWISE_PG_BIN``, this machine, ``lagwise[embedded]``, Docker. It is
    up in about a second, listens on loopback only, and leaves no process and no file behind.

    Args:
        replicas: How many standbys; none is fine.
        binaries: Which PostgreSQL, when not the first one found.
        major: Which major version to look for.
        settings: PostgreSQL settings for every node, over the defaults in ``lagwise.testing.local``.
        backend: What runs the servers; ``binaries`` and ``major`` are then ignored.

    Attributes:
        nodes: Every node by name, ``primary``, ``replica-1``, ...; names stay after a promotion.
        primary: The node that is primary now: after ``promote("replica-1")`` that one.
        version: PostgreSQL's version.
        origin: Where it came from.

    Raises:
        BinariesNotFound: There is no PostgreSQL and no Docker engine here.
        ClusterError: A server did not do what was asked; the message has the end of its log.
    """

    def __init__(
        self,
        replicas: int = 2,
        *,
        binaries: Binaries | None = None,
        major: int | None = None,
        settings: Mapping[str, str | float] | None = None,
        backend: Backend | None = None,
    ) -> None:
        if replicas < 0:
            message = f"replicas={replicas}: a cluster has none or more."
            raise ValueError(message)
        self._count = replicas
        self._settings = {key: setting(value) for key, value in (settings or {}).items()}
        self._choose: Callable[[], Backend] = lambda: backend or choose_backend(binaries, major=major)
        self._login = Login("lagwise", secrets.token_hex(8))
        self._nodes: dict[str, Node] = {}
        self._proxies: list[Proxy] = []
        self._backend: Backend | None = None
        self.version = ""
        self.origin = ""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Every node by name."""
        return MappingProxyType(self._nodes)

    @property
    def primary(self) -> Node:
        """The node that was made primary last."""
        return self._primary

    @property
    def replicas(self) -> tuple[Node, ...]:
        """Every other node; after a promotion the old primary is among them until it rejoins."""
        return tuple(node for node in self._nodes.values() if node is not self._primary)

    async def pause_replay(self, which: Which) -> None:
        """Let a replica receive WAL and show none of it: lag on demand. Returns when replay stands still."""
        await replication.pause(self._node(which))

    async def resume_replay(self, which: Which) -> None:
        """End ``pause_replay``."""
        await self._node(which).ask(lambda connection: connection.execute("SELECT pg_wal_replay_resume()"))

    async def set_apply_delay(self, which: Which, seconds: float) -> None:
        """Let a replica show commits ``seconds`` after the primary made them (recovery_min_apply_delay)."""
        await replication.configure(self._node(which), "recovery_min_apply_delay", f"{round(seconds * 1000)}ms")

    async def stop(self, which: Which) -> None:
        """Shut a node down in order."""
        await blocking(self._node(which).server.stop)

    async def kill(self, which: Which) -> None:
        """Kill a node with SIGKILL, as a crash would."""
        await blocking(self._node(which).server.kill)

    async def start(self, which: Which) -> None:
        """Start a stopped or killed node again, under the same URL."""
        node = self._node(which)
        await blocking(node.server.start)
        reroute(self._nodes.values(), node)

    async def restart(self, which: Which) -> None:
        """``stop`` and ``start``."""
        await self.stop(which)
        await self.start(which)

    async def promote(self, which: Which, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - PostgreSQL's
        """Make a replica the primary. The old primary goes on, and the other replicas still follow it."""
        node = self._node(which)
        if not await node.fetchval("SELECT pg_promote(true, $1)", max(1, round(timeout))):
            message = f"{node.name} was not promoted within {max(1, round(timeout))} s."
            raise ClusterError(message)
        node.detach()
        self._primary = node

    async def follow(self, which: Which, *, of: Which | None = None) -> None:
        """Let a running replica stream from another node (the primary, unless said), and return when it does.

        Raises:
            TimeoutError: It does not stream within 10 s; a node past the fork never will: ``rejoin`` it.
        """
        node, upstream = self._node(which), self._primary if of is None else self._node(of)
        await replication.add_slot(upstream, node)
        node.attach(upstream)
        node.link.reset()
        if node.running and node.link.passing:
            await replication.streams(node)

    async def rejoin(self, which: Which, *, of: Which | None = None) -> None:
        """Make any node a replica of ``of`` (the primary), rewound or cloned; if it leads itself, ``of`` does then."""
        node, upstream = self._node(which), self._primary if of is None else self._node(of)
        await self.stop(node)
        # pg_rewind reads the source's timeline from its last checkpoint, which a promotion does not wait for.
        await upstream.execute("CHECKPOINT")
        await replication.add_slot(upstream, node)
        node.attach(upstream)
        node.link.heal()
        await blocking(node.server.rejoin, self._login.upstream(node.name, node.link.address))
        await self.start(node)
        self._primary = upstream if node is self._primary else self._primary
        await replication.streams(node)

    async def terminate_backends(self, which: Which) -> int:
        """End every client session on a node (SQLSTATE 57P01), and return how many there were."""
        return await replication.terminate(self._node(which))

    async def cut(self, which: Which) -> None:
        """Cut a node off its clients: open connections are reset, new ones refused. It still replicates."""
        self._node(which).proxy.cut()

    async def black_hole(self, which: Which) -> None:
        """Let the network before a node swallow everything: connections stay open and nothing answers."""
        self._node(which).proxy.black_hole()

    async def partition(self, which: Which) -> None:
        """Cut a replica off its upstream; clients still reach it, and it falls behind."""
        self._node(which).link.cut()

    async def heal(self, which: Which | None = None) -> None:
        """Undo ``cut``, ``black_hole`` and ``partition`` for one node, or for all."""
        for node in self._nodes.values() if which is None else (self._node(which),):
            node.proxy.heal()
            node.link.heal()

    async def restore(self) -> None:
        """Undo every fault, for the next test: nodes run, messages pass at once, and replicas show all there is.

        Roles stay as they are: after ``promote``, a node that does not follow is left to ``follow`` and ``rejoin``.
        """
        await self.heal()
        for node in self._nodes.values():
            node.proxy.latency = node.link.latency = 0.0
            await self.start(node)
        if not await replication.at_once(self._primary, [node for node in self.replicas if node.upstream is not None]):
            await self.caught_up()

    async def caught_up(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - named in the error, per replica
        """Wait until replicas show all that the primary has written by now; ``timeout`` is seconds.

        Those count that run, follow the current primary, are not partitioned and not paused.

        Raises:
            TimeoutError: One did not get there; the message says which, and how far it is.
        """
        target = await replication.position(self._primary)
        followers = [n for n in self.replicas if n.upstream is self._primary and n.running and n.link.passing]
        await together(*(replication.replayed(node, target, timeout) for node in followers))

    async def _open(self) -> None:
        backend = await blocking(self._choose_backend)
        self.version, self.origin = backend.version, backend.origin
        login = {"user": self._login.user, "password": self._login.password}
        server = await blocking(partial(backend.create_primary, "primary", settings=self._settings, **login))
        link = self._proxy(Proxy(server.address, host=backend.gateway, counting=False))
        self._primary = Node("primary", server, self._proxy(Proxy(server.address)), link, self._login)
        self._nodes["primary"] = self._primary
        names = [f"replica-{number}" for number in range(1, self._count + 1)]
        await replication.prepare(self._primary, self._login.database, names)
        replicas = await together(*(self._replica(name, backend) for name in names))
        self._nodes.update({node.name: node for node in replicas})
        await together(*(replication.streams(node) for node in replicas))

    async def _replica(self, name: str, backend: Backend) -> Node:
        link = self._proxy(Proxy(self._primary.server.address, host=backend.gateway, counting=False))
        server = await blocking(backend.create_replica, name, self._login.upstream(name, link.address))
        node = Node(name, server, self._proxy(Proxy(server.address)), link, self._login)
        node.attach(self._primary)
        return node

    async def _close(self) -> None:
        try:
            await together(*(each.close() for group in (self._nodes.values(), self._proxies) for each in group))
        finally:
            if self._backend is not None:
                await blocking(self._backend.close)

    def _choose_backend(self) -> Backend:
        self._backend = self._choose()  # kept here: a cancelled caller never sees what this returns
        return self._backend

    def _node(self, which: Which) -> Node:
        return which if isinstance(which, Node) else self._nodes[which]

    def _proxy(self, proxy: Proxy) -> Proxy:
        proxy.open()
        self._proxies.append(proxy)
        return proxy
