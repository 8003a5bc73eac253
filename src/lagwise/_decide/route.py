"""The decision: which node serves a session, and the one word that says why."""

import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from lagwise._decide.lsn import LSN
from lagwise._decide.view import View
from lagwise.policy import Policy


class Reason(StrEnum):
    """Why a session went where it went; logs, metrics, health, headers and tests use these words."""

    __module__ = "lagwise"

    WRITE = "write"
    STRONG = "strong"
    HELD_BACK = "held-back"
    NO_REPLICAS = "no-replicas"
    CAUGHT_UP = "caught-up"
    FRESH = "fresh"
    STICKY = "sticky"
    OTHER_TIMELINE = "other-timeline"
    NONE_CAUGHT_UP = "none-caught-up"
    ALL_LAGGING = "all-lagging"
    NONE_IN_ROTATION = "none-in-rotation"
    NO_PRIMARY = "no-primary"

    @property
    def may_improve(self) -> bool:
        """Whether a newer reading within milliseconds could turn this into a replica's read."""
        return self in _MAY_IMPROVE


_MAY_IMPROVE = frozenset({Reason.NONE_CAUGHT_UP, Reason.ALL_LAGGING, Reason.OTHER_TIMELINE})


@dataclass(frozen=True, slots=True, repr=False)
class Route:
    """The node of a session, and why. `node` is None when no node may serve the session.

    Attributes:
        on_replica: the node is a replica.
        fell_back: the primary serves for want of a replica: the session counts against `fall_back_limit`.
        rival: another replica that was drawn, which `less_loaded` compares with `node`.
    """

    __module__ = "lagwise"

    node: str | None
    reason: Reason
    on_replica: bool = False
    fell_back: bool = field(default=False, compare=False)
    rival: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.node or 'none'}; reason={self.reason}"

    def __repr__(self) -> str:
        way = " on-replica" if self.on_replica else " fell-back" if self.fell_back else ""
        return f"<Route {self.node or 'none'} {self.reason}{way}>"


_MOST = 4096  # Routes that are kept: those between 40 replicas, and of more replicas those in use
_shared = lru_cache(_MOST)(Route)
"""A Route as one value that sessions share. To make a frozen one anew takes longer than to decide on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a session asks for.

    Attributes:
        write: it may write.
        strong: why it reads from the primary whatever replicas have: `STRONG`, `HELD_BACK`, or None.
        timeline, floor: the position it must not read below; timeline 0 for none.
        expired: the sticky window of that position has passed: a position that cannot be compared is dropped.
        outlived: it is so old that a later timeline which no node here confirms is not waited for any more.
        sticky: the client wrote something whose position is unknown, and the sticky window has not passed.
        doubted: a commit of the client was ever in doubt; harmless after the window unless staleness has no bound.
        max_staleness: a bound for this read, seconds, instead of the policy's `max_lag`.
    """

    write: bool = False
    strong: Reason | None = None
    timeline: int = 0
    floor: LSN = LSN(0)
    expired: bool = False
    outlived: bool = False
    sticky: bool = False
    doubted: bool = False
    max_staleness: float | None = None

    def bound(self, policy: Policy) -> float:
        """The seconds by which a replica may be behind to serve this."""
        return policy.max_lag if self.max_staleness is None else min(self.max_staleness, policy.max_lag)


_ANY = LSN(0)


def first() -> float:
    """The draw that chooses the most advanced of the replicas that qualify."""
    return 0.0


def route(
    view: View,
    policy: Policy,
    demand: Demand,
    now: float,
    *,
    draw: Callable[[], float] = random.random,
) -> Route:
    """Choose a node for a session at `now` (monotonic seconds).

    Pure but for `draw`, numbers in [0, 1): among replicas that qualify, two are drawn by weight, the node and its
    rival, and `less_loaded` decides between them ("power of two choices", Mitzenmacher 2001).
    """
    # What is true of nearly every read is asked here, and without a call.
    if demand.timeline > view.timeline and deposed(view, demand, now):
        return _shared(None, Reason.OTHER_TIMELINE)
    if demand.write:
        return _on_primary(view, Reason.WRITE)
    if demand.strong:
        return _on_primary(view, demand.strong)
    if view.alone:
        return _on_primary(view, Reason.NO_REPLICAS)
    if demand.sticky:
        return _on_primary(view, Reason.STICKY)
    floor = _floor(view, demand, now) if demand.timeline else _ANY
    if floor is None:
        return _fallen_back(view, policy, Reason.OTHER_TIMELINE)
    able = view.fresh(now - (policy.max_lag if demand.max_staleness is None else demand.bound(policy)))
    reason = Reason.FRESH
    if not able:
        able, reason = _beyond(view, policy, demand, floor)
        if not able:
            return _fallen_back(view, policy, reason)
    if floor:
        # The floor says what this client must see; the bound on staleness, where there is one, is in `able` already.
        able = min(able, view.caught_up(floor))
        if not able:
            return _fallen_back(view, policy, Reason.NONE_CAUGHT_UP)
        if reason is Reason.FRESH:
            reason = Reason.CAUGHT_UP
    return _pick(view, able, reason, draw)


def deposed(view: View, demand: Demand, now: float) -> bool:
    """Whether a node that is not in this picture has been promoted: the primary in it is the deposed one.

    A sticky window does not end this: what a replica of the deposed primary shows is not the history of that write.
    """
    return demand.timeline > view.timeline and not (demand.outlived or view.denies(demand.timeline, now))


def serves(view: View, policy: Policy, demand: Demand, now: float, fallen_back: int) -> bool:
    """Whether a session with this demand would be opened now, while so many have fallen back to the primary."""
    chosen = route(view, policy, demand, now, draw=first)
    return chosen.node is not None and not (chosen.fell_back and limit_reached(policy, fallen_back))


def limit_reached(policy: Policy, fallen_back: int) -> bool:
    """Whether no further session may read from the primary for want of a replica."""
    return policy.fall_back_limit is not None and fallen_back >= policy.fall_back_limit


def _on_primary(view: View, reason: Reason) -> Route:
    return _shared(view.primary.name if view.primary is not None else None, reason)


def _fallen_back(view: View, policy: Policy, reason: Reason) -> Route:
    if not policy.fall_back or view.primary is None:
        return _shared(None, reason)
    return _shared(view.primary.name, reason, fell_back=True)


def _floor(view: View, demand: Demand, now: float) -> LSN | None:
    """The LSN to read at or above, 0 for any, or None: not comparable with what the replicas say."""
    if demand.timeline != view.timeline or now < view.suspect_until:
        return _ANY if demand.expired else None
    if demand.expired:
        head = view.primary.reading if view.primary is not None else None
        if head is not None and head.at >= now and demand.floor > head.lsn:
            # The primary has not reached the position a whole window later: its log is lost, and no replica will.
            return _ANY
    return demand.floor


def _beyond(view: View, policy: Policy, demand: Demand, floor: LSN) -> tuple[int, Reason]:
    """How many replicas may serve although none is known to be within the bound on staleness, and the reason."""
    if not view.rotation:
        return 0, Reason.NONE_IN_ROTATION
    if view.primary is not None or demand.max_staleness is not None:
        return 0, Reason.ALL_LAGGING
    # Without a primary staleness has no bound. A floor still holds; for a client without one the policy decides.
    # A doubt, or a position of another timeline, ends with its window because by then every replica in rotation is
    # fresher than the write. Without a bound that is not known, so it does not end.
    uncovered = demand.doubted or (demand.timeline > 0 and not floor)
    able = len(view.rotation) if not uncovered and (floor or policy.without_primary == "serve") else 0
    return able, Reason.NO_PRIMARY


def _pick(view: View, able: int, reason: Reason, draw: Callable[[], float]) -> Route:
    """The route to one of the first `able` nodes of the rotation, with a rival unless the same was drawn twice."""
    rotation = view.rotation
    if able == 1:
        return _shared(rotation[0].name, reason, on_replica=True)
    weights, last = view.weights, able - 1
    total = weights[last]
    one = rotation[bisect_right(weights, draw() * total, 0, last)]
    other = rotation[bisect_right(weights, draw() * total, 0, last)]
    return _shared(one.name, reason, on_replica=True, rival=None if other is one else other.name)


def less_loaded(chosen: Route, load: float, of_rival: float) -> Route:
    """The route to the less loaded of the two that were drawn. Loads are sessions in flight, divided by the weight."""
    if chosen.rival is None or load <= of_rival:
        return chosen
    return _shared(chosen.rival, chosen.reason, on_replica=True)
