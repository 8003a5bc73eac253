"""What is known of the nodes at one moment: readings, the history of the primary, and the View of both."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate
from math import inf

from lagwise.lsn import LSN


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
    """

    role: Role
    system: int
    timeline: int
    lsn: LSN
    at: float


@dataclass(frozen=True, slots=True)
class History:
    """Where the primary's log stood at which time: the only clock that measures staleness.

    A replica's own timestamps grow while the primary is idle and stand still when its receiver is dead.
    """

    lsns: tuple[LSN, ...] = ()
    times: tuple[float, ...] = ()

    def seen(self, lsn: LSN, at: float) -> "History":
        """Add a sample. Equal positions keep the latest time; a crash that lost log drops what it lost."""
        keep = bisect_right(self.lsns, lsn)
        if keep and self.lsns[keep - 1] == lsn:
            keep, at = keep - 1, max(at, self.times[keep - 1])
        lsns, times = (*self.lsns[:keep], lsn), (*self.times[:keep], at)
        if len(lsns) > _SAMPLES:  # thin out the older half: fewer samples can only overstate staleness
            half = len(lsns) // 2
            lsns, times = lsns[:half:2] + lsns[half:], times[:half:2] + times[half:]
        return History(lsns, times)

    def fresh_at(self, replayed: LSN) -> float:
        """The latest time before which every commit is included in `replayed`; -inf when unknown."""
        index = bisect_right(self.lsns, replayed)
        return self.times[index - 1] if index else -inf


_SAMPLES = 512


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
            found = primary.reading
            if identity != (found.system, found.timeline):
                identity, history = (found.system, found.timeline), History()
            history = history.seen(found.lsn, found.at)
        else:
            # Nobody vouches for a newer timeline than the replicas do themselves.
            identity = max(
                [
                    identity,
                    *((r.system, r.timeline) for r in _replicas(nodes) if identity[0] in {0, r.system}),
                ]
            )
        nodes = tuple(_judged(node, primary, identity, history) for node in nodes)
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


def _elect(nodes: tuple[Node, ...], known: tuple[int, int]) -> Node | None:
    """The one primary: the node on the highest timeline that anybody knows of.

    Two on one timeline, or of two clusters, are none; and so is one whose replicas, or whose past here,
    speak of a later timeline: it is the old primary come back, and somebody else has been promoted.
    """
    claims = [node.reading for node in nodes if node.reading is not None and node.reading.role is Role.PRIMARY]
    systems = {claim.system for claim in claims}
    if len(systems) != 1:
        return None
    followed = [replica.timeline for replica in _replicas(nodes) if replica.system in systems]
    past = [known[1]] if known[0] in systems else []
    latest = max([*followed, *past, *(claim.timeline for claim in claims)])
    elected = [node for node in nodes if node.reading in claims and node.reading.timeline == latest]
    return elected[0] if len(elected) == 1 else None


def _judged(node: Node, primary: Node | None, identity: tuple[int, int], history: History) -> Node:
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
    else:
        standing, fresh_at = (
            Standing.DRAINED if node.drained else Standing.IN_ROTATION,
            history.fresh_at(reading.lsn),
        )
    return replace(node, standing=standing, fresh_at=fresh_at)
