"""What is known of the nodes at one moment: their readings, and the View of them all."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate
from math import inf

from lagwise._decide.lag_history import History
from lagwise._decide.lsn import LSN


class Role(StrEnum):
    """What a node says it is (`pg_is_in_recovery()`), whatever it was configured as."""

    PRIMARY = "primary"
    REPLICA = "replica"


class Standing(StrEnum):
    """Where a node stands: the one primary, in rotation for reads, or why it is not."""

    PRIMARY = "primary"
    IN_ROTATION = "in-rotation"
    LAGGING = "lagging"
    DRAINED = "drained"
    UNREACHABLE = "unreachable"
    OTHER_TIMELINE = "other-timeline"
    OTHER_CLUSTER = "other-cluster"
    RIVAL_PRIMARY = "rival-primary"
    RIVALS_REPLICA = "rivals-replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one node answered to one probe.

    Attributes:
        role: primary or replica.
        system: the system identifier; 0 where the server is not PostgreSQL.
        timeline: the timeline it writes (primary) or follows (replica).
        lsn: a primary's insert position, normalised; what a replica has replayed.
        at: monotonic seconds when the probe was sent: whatever was committed before is at or below a
            primary's `lsn`.
        flushed: what a primary has flushed to disk, and so handed on; 0 where that was not asked.
    """

    role: Role
    system: int
    timeline: int
    lsn: LSN
    at: float
    flushed: LSN = LSN(0)

    def stuck_since(self, earlier: "Reading | None") -> bool:
        """Whether this primary holds log back that it has not flushed, and flushed nothing since."""
        return earlier is not None and earlier.flushed == self.flushed and 0 < self.flushed < self.lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node as last read. `reading` is None while it is unreachable; `error` then is a class name."""

    name: str
    weight: float = 1.0
    reading: Reading | None = None
    error: str | None = None
    drained: bool = False
    standing: Standing = Standing.UNREACHABLE
    fresh_at: float = -inf

    def staleness(self, now: float) -> float:
        """Seconds by which this replica may be behind the primary; infinite when that cannot be bounded."""
        return max(0.0, now - self.fresh_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An immutable picture of all nodes, replaced whole at each reading; nobody locks.

    `rotation` is sorted by replayed position, the most advanced first. Staleness follows from that
    position alone, so the replicas that pass a floor, or a staleness bound, are always a prefix.
    """

    nodes: tuple[Node, ...]
    history: History = History()
    system: int = 0
    timeline: int = 0
    primary: Node | None = None
    rotation: tuple[Node, ...] = ()
    weights: tuple[float, ...] = field(default=(), repr=False)
    _lsns: tuple[int, ...] = field(default=(), repr=False)
    _times: tuple[float, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, nodes: Iterable[Node], before: "View | None" = None) -> "View":
        """Judge the nodes' readings together; `before` brings the history and the last known identity."""
        nodes = tuple(nodes)
        identity = (before.system, before.timeline) if before is not None else (0, 0)
        primary = _elect(nodes, identity)
        history = before.history if before is not None else History()
        if primary is not None and primary.reading is not None:
            now = (primary.reading.system, primary.reading.timeline)
        else:
            # Nobody vouches for a newer timeline than the replicas do themselves.
            system = _system(nodes, identity)
            now = max([identity, *((r.system, r.timeline) for r in _replicas(nodes) if r.system == system)])
        if now != identity:
            # Positions of one timeline say nothing of times on another.
            identity, history = now, History()
        if primary is not None and primary.reading is not None:
            history = history.seen(primary.reading.lsn, primary.reading.at)
        split = primary is None and len(_claims(nodes, identity)) > 1
        nodes = tuple(_judged(node, primary, identity, history, split=split) for node in nodes)
        able = [node for node in nodes if node.standing is Standing.IN_ROTATION]
        able.sort(key=lambda node: -node.reading.lsn if node.reading else 0)
        return cls(
            nodes=nodes,
            history=history,
            system=identity[0],
            timeline=identity[1],
            primary=next((node for node in nodes if node.standing is Standing.PRIMARY), None),
            rotation=tuple(able),
            weights=tuple(accumulate(node.weight for node in able)),
            _lsns=tuple(-node.reading.lsn for node in able if node.reading),
            _times=tuple(-node.fresh_at for node in able),
        )

    def caught_up(self, floor: int) -> int:
        """How many replicas, from the front of `rotation`, have replayed `floor`."""
        return bisect_right(self._lsns, -floor)

    def fresh(self, since: float) -> int:
        """How many replicas, from the front of `rotation`, include every commit before `since`."""
        return bisect_right(self._times, -since)

    def without(self, names: frozenset[str]) -> "View":
        """The same picture with these nodes taken out of rotation."""
        return View.of((replace(node, drained=True) if node.name in names else node for node in self.nodes), self)

    def heard_from_all(self, since: float) -> bool:
        """Whether every node has answered a probe sent at `since` (monotonic seconds) or later."""
        return all(node.reading is not None and node.reading.at >= since for node in self.nodes)

    def node(self, name: str) -> Node:
        """The node of that name; `KeyError` when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def standing(self, node: Node, max_lag: float, now: float) -> Standing:
        """A node's standing under a lag bound (seconds)."""
        if node.standing is Standing.IN_ROTATION and node.staleness(now) > max_lag:
            return Standing.LAGGING
        return node.standing


def _replicas(nodes: Iterable[Node]) -> list[Reading]:
    return [node.reading for node in nodes if node.reading is not None and node.reading.role is Role.REPLICA]


def _system(nodes: tuple[Node, ...], known: tuple[int, int]) -> int:
    """Which cluster is ours: the one known; else the only one; else that of the node configured as primary; else 0."""
    if known[0]:
        return known[0]
    systems = {node.reading.system for node in nodes if node.reading is not None}
    if len(systems) == 1:
        return systems.pop()
    first = nodes[0].reading if nodes else None
    return first.system if first is not None else 0


def _claims(nodes: tuple[Node, ...], known: tuple[int, int]) -> list[Node]:
    """The nodes that may be the primary: those on the latest timeline that anybody knows of.

    Once the cluster is known, another cluster's primary is no candidate, whatever its timeline. And none is
    a primary whose replicas, or whose past here, speak of a later timeline: it is the old one come back.
    """
    primaries = [node for node in nodes if node.reading is not None and node.reading.role is Role.PRIMARY]
    system = _system(nodes, known)
    timelines = [(node.reading.timeline, node) for node in primaries if node.reading and node.reading.system == system]
    followed = [replica.timeline for replica in _replicas(nodes) if replica.system == system]
    latest = max([known[1], *followed, *(timeline for timeline, _ in timelines)])
    return [node for timeline, node in timelines if timeline == latest]


def _elect(nodes: tuple[Node, ...], known: tuple[int, int]) -> Node | None:
    """The one primary. Two on one timeline, or two of which neither cluster is known, are none."""
    claims = _claims(nodes, known)
    return claims[0] if len(claims) == 1 else None


def _judged(node: Node, primary: Node | None, identity: tuple[int, int], history: History, *, split: bool) -> Node:
    reading, fresh_at = node.reading, -inf
    if reading is None:
        standing = Standing.UNREACHABLE
    elif node is primary:
        standing = Standing.PRIMARY
    elif reading.role is Role.PRIMARY:
        standing = Standing.RIVAL_PRIMARY
    elif reading.system != identity[0]:
        standing = Standing.OTHER_CLUSTER
    elif reading.timeline != identity[1]:
        standing = Standing.OTHER_TIMELINE
    elif split:
        # Two histories share this timeline's number: nobody can say which of them a position is of.
        standing = Standing.RIVALS_REPLICA
    else:
        standing = Standing.DRAINED if node.drained else Standing.IN_ROTATION
        fresh_at = history.fresh_at(reading.lsn)
    return replace(node, standing=standing, fresh_at=fresh_at)
