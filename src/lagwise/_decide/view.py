"""What is known of the nodes at one moment: the View of them all."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf, isfinite

from lagwise._decide.database import NO_DATABASE, Database, believe_database
from lagwise._decide.identity import NO_TERMS, NOTHING, Identity, Terms, believe, claimants
from lagwise._decide.lag_history import LagHistory
from lagwise._decide.node import Node, Reading, Role, Standing, second_names

__all__ = ["Node", "Reading", "Role", "Standing", "View"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class View:
    """An immutable picture of all nodes, replaced whole at each reading; no lock is needed.

    `rotation` is sorted by replayed position, the most advanced first. Staleness follows from that
    position alone, so the replicas that pass a floor, or a staleness bound, are always a prefix.

    Attributes:
        nodes: in the order of the configuration; the first is the one configured as primary.
        at: monotonic seconds when the latest probe in this picture was sent.
        system, timeline: of the cluster that is believed to be ours; `identity` has whether that is confirmed.
        alone: there is one server only, however many nodes lead to it.
        suspect_until: clients' positions are compared with nothing until then (monotonic seconds).
        database: the one of that cluster that is believed to be ours.
        leader: the latest primary's name and timeline, also while there is none; None before the first.
    """

    nodes: tuple[Node, ...]
    history: LagHistory = LagHistory()
    identity: Identity = NOTHING
    terms: Terms = NO_TERMS
    at: float = -inf
    system: int = 0
    timeline: int = 0
    database: Database = NO_DATABASE
    suspect_until: float = -inf
    primary: Node | None = None
    leader: tuple[str, int] | None = None
    alone: bool = False
    rotation: tuple[Node, ...] = ()
    weights: tuple[float, ...] = ()
    _lsns: tuple[int, ...] = ()
    _times: tuple[float, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node], before: "View | None" = None, terms: Terms | None = None) -> "View":
        """Judge the nodes' readings together; `before` brings the history, the belief and the terms.

        The nodes need not be those of before: one may have been added or removed.
        """
        nodes = tuple(nodes)
        known = before.identity if before is not None else NOTHING
        terms = terms or (before.terms if before is not None else NO_TERMS)
        identity, primary = believe(nodes, known, terms)
        # Positions of one timeline say nothing of times on another.
        history = before.history if before is not None and identity.line == known.line else LagHistory()
        if primary is not None and primary.reading is not None:
            history = history.seen(primary.reading.lsn, primary.reading.at)
        others = second_names(nodes)
        split = len(claimants([node for node in nodes if node.name not in others], identity)) > 1
        leader = before.leader if before is not None else None
        database = before.database if before is not None and before.system == identity.system else NO_DATABASE
        if not split:  # else nothing tells which of two histories is ours
            database = believe_database(nodes, others, primary, identity, database, terms)
        judged = tuple(_judged(node, primary, identity, history, others, database.oid, split=split) for node in nodes)
        picture = cls(
            nodes=judged,
            history=history,
            identity=identity,
            terms=terms,
            at=max(
                [before.at if before is not None else -inf, *(n.reading.at for n in nodes if n.reading is not None)]
            ),
            system=identity.system,
            timeline=identity.timeline,
            database=database,
            suspect_until=identity.suspect_until,
            primary=next((node for node in judged if node.standing is Standing.PRIMARY), None),
            leader=(primary.name, identity.timeline) if primary is not None else leader,
            alone=len(nodes) == 1 or (primary is not None and len(others) == len(nodes) - 1),
        )
        return picture._rotated(judged)

    def _rotated(self, nodes: tuple[Node, ...]) -> "View":
        """The same picture of these nodes, whose standing is known."""
        able = [node for node in nodes if node.standing is Standing.IN_ROTATION]
        able.sort(key=lambda node: -node.reading.lsn if node.reading else 0)
        return replace(
            self,
            nodes=nodes,
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
        return self._rotated(tuple(_drained(node) if node.name in names else node for node in self.nodes))

    def heard_from_all(self, since: float) -> bool:
        """Whether every node has answered a probe sent at `since` (monotonic seconds) or later."""
        return all(node.reading is not None and node.reading.at >= since for node in self.nodes)

    def denies(self, timeline: int, now: float) -> bool:
        """Whether there is no such later timeline: every node was asked just now, or all have long denied it."""
        return (timeline <= self.identity.abandoned and now < self.suspect_until) or self.heard_from_all(now)

    def lag(self, node: Node) -> int | None:
        """Bytes of log that the primary has written and this node has not replayed; None while that is unknown.

        Also for a node on another history: its positions cannot be compared.
        """
        head, reading = self.primary.reading if self.primary is not None else None, node.reading
        if head is None or reading is None or (reading.system, reading.timeline) != (head.system, head.timeline):
            return None
        return max(0, head.lsn - reading.lsn)

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

    def __repr__(self) -> str:
        """The scenario at the moment of its latest reading."""
        return f"<View {self.described(self.at, self.terms.max_lag)}>"

    def described(self, now: float, max_lag: float) -> str:
        """The scenario in a line, at `now` (monotonic seconds); no address is in it."""
        shown = (f"{node.name} ({self._seen(node, now, max_lag)})" for node in self.nodes if node is not self.primary)
        leader = self.primary.name if self.primary is not None else "none"
        return f"primary={leader} replicas={', '.join(shown) or 'none'}"

    def _seen(self, node: Node, now: float, max_lag: float) -> str:
        standing, staleness = self.standing(node, max_lag, now), node.staleness(now)
        known = standing in {Standing.IN_ROTATION, Standing.LAGGING} and isfinite(staleness)
        return f"{standing}, {staleness:.1f} s" if known else str(standing)


def _drained(node: Node) -> Node:
    standing = Standing.DRAINED if node.standing is Standing.IN_ROTATION else node.standing
    return replace(node, drained=True, standing=standing)


def _judged(
    node: Node,
    primary: Node | None,
    identity: Identity,
    history: LagHistory,
    others: frozenset[str],
    database: int,
    *,
    split: bool,
) -> Node:
    reading, fresh_at = node.reading, -inf
    if reading is None:
        standing = Standing.UNREACHABLE
    elif node.name in others:
        standing = Standing.SAME_SERVER
    elif (reading.system, reading.timeline) == identity.line and database and reading.database not in {0, database}:
        standing = Standing.OTHER_DATABASE
    elif node is primary:
        standing = Standing.PRIMARY
    elif not identity.sure and not split and (reading.role is Role.PRIMARY or not identity.system):
        standing = Standing.UNCONFIRMED
    elif reading.role is Role.PRIMARY:
        standing = Standing.RIVAL_PRIMARY
    elif reading.system != identity.system:
        standing = Standing.OTHER_CLUSTER
    elif reading.timeline != identity.timeline:
        standing = Standing.OTHER_TIMELINE
    elif split:
        # Two histories share this timeline's number: no position tells which of them it is of.
        standing = Standing.RIVALS_REPLICA
    else:
        standing = Standing.DRAINED if node.drained else Standing.IN_ROTATION
        fresh_at = history.fresh_at(reading.lsn)
    return replace(node, standing=standing, fresh_at=fresh_at)
