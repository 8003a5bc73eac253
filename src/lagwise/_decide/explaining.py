"""A decision in words: where a session would go now, what keeps it off each replica, and what its token says."""

from collections.abc import Mapping
from dataclasses import dataclass

from lagwise._decide.refusing import no_place, refusal, why
from lagwise._decide.route import Demand, Reason, Route, deposed, first, limit_reached, route
from lagwise._decide.token import CausalToken, Position
from lagwise._decide.view import Node, Standing, View
from lagwise.errors import RoutingError
from lagwise.policy import Policy

# By the word: what a Reason says of a session.
BECAUSE: Mapping[str, str] = {
    "write": "it may write",
    "strong": "it asks for the primary",
    "held-back": "the reads of this client are held back from replicas",
    "no-replicas": "there is one server only",
    "caught-up": "it has all that this client has seen, and is fresh enough",
    "fresh": "it is fresh enough, and this client has seen nothing that binds it",
    "sticky": "a commit of this client is in doubt, or its token is of a cluster that this process does not know",
    "other-timeline": "this client's position is of another timeline: there was a failover",
    "none-caught-up": "no replica has all that this client has seen",
    "all-lagging": "no replica is fresh enough",
    "none-in-rotation": "no replica is in rotation",
    "no-primary": "no primary is in sight, so that the staleness of replicas is not known",
}

_BELOW_ONE = 1 - 2**-53  # the greatest number that `draw` may give


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplained:
    """One node, as this session would find it.

    Attributes:
        serves: the session may go there now.
        why: in words; no address is in it.
        lacks: bytes of log that the client has seen and this replica has not replayed; None where that is unknown.
        staleness: seconds behind the primary, at most; None where that is unknown.
    """

    name: str
    standing: Standing
    serves: bool
    why: str
    lacks: int | None = None
    staleness: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionExplained:
    """What a token says of one cluster.

    Attributes:
        position: system identifier, timeline, LSN, and when it was issued.
        ours: it is of the cluster that is read now.
        age: seconds since it was issued, or since the commit in doubt; negative where the issuer's clock is ahead.
        in_doubt: a commit is still in doubt, so that reads go to the primary.
        expired: the window has passed; a position that can be compared binds all the same.
        why: in words.
    """

    position: Position
    ours: bool
    age: float
    in_doubt: bool
    expired: bool
    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a session would go now, and why. `str()` tells all of it in lines.

    Attributes:
        route: the decision. Where several replicas may serve, it names the most advanced one.
        error: what the session would raise instead; None where it is served.
        waits: seconds that the session would wait at most for a replica before this holds.
        nodes: each node, in the order of the configuration.
        token: what the token says, by cluster; empty where this client has seen nothing.
    """

    route: Route
    write: bool
    error: RoutingError | None
    waits: float
    nodes: tuple[NodeExplained, ...]
    token: tuple[PositionExplained, ...]

    def __str__(self) -> str:
        what = "a write" if self.write else "a read"
        if self.error is not None:
            head = f"{what} would raise {type(self.error).__name__} ({self.route.reason}): {self.error}"
        else:
            able = [node.name for node in self.nodes if node.serves] if self.route.on_replica else [self.route.node]
            because = BECAUSE.get(self.route.reason, "")
            head = f"{what} would go to {' or '.join(map(str, able))} ({self.route.reason}): {because}"
        wait = f"it would wait {self.waits:g} s at most for a replica before that"
        lines = [head, *([wait] if self.waits else ()), *(f"  {node}" for node in self.nodes)]
        if self.token:
            lines += ["the token:", *(f"  {position}" for position in self.token)]
        else:
            lines.append("no token: this client has seen nothing")
        return "\n".join(lines)


def explain(
    view: View,
    policy: Policy,
    demand: Demand,
    now: float,
    *,
    token: CausalToken,
    wall: float,
    fallen_back: int = 0,
) -> Explanation:
    """Ask the decision itself: for all nodes, and what it says of each other replica alone.

    Args:
        view: what is known of the nodes.
        policy: of the Router.
        demand: what the session asks for, with this token.
        now: monotonic seconds.
        token: what its client has seen.
        wall: seconds since the epoch.
        fallen_back: sessions that hold a place on the primary for want of a replica.
    """
    chosen = route(view, policy, demand, now, draw=first)
    serving = _serving(view, policy, demand, now)
    error: RoutingError | None = None
    if chosen.node is None:
        error = refusal(view, policy, chosen, now, deposed=deposed(view, demand, now))
    elif chosen.fell_back and policy.fall_back_limit is not None and limit_reached(policy, fallen_back):
        error = no_place(chosen, policy.fall_back_limit)
    return Explanation(
        route=chosen,
        write=demand.write,
        error=error,
        waits=policy.catch_up if chosen.reason.may_improve else 0.0,
        nodes=tuple(_node(view, node, policy, demand, now, serves=node.name in serving) for node in view.nodes),
        token=tuple(_position(view, policy, position, token, wall) for position in token),
    )


def _last() -> float:
    return _BELOW_ONE


def _serving(view: View, policy: Policy, demand: Demand, now: float) -> frozenset[str]:
    """The nodes that the decision may choose.

    Replicas that qualify are a prefix of the rotation, and drawing the greatest number gives its last.
    """
    last = route(view, policy, demand, now, draw=_last)
    names = [node.name for node in view.rotation]
    able = names[: names.index(last.node) + 1] if last.on_replica and last.node is not None else [last.node]
    return frozenset(name for name in able if name is not None)


def _node(view: View, node: Node, policy: Policy, demand: Demand, now: float, *, serves: bool) -> NodeExplained:
    standing = view.standing(node, policy.max_lag, now)
    staleness = node.shown_staleness(now)
    lacks: int | None = None
    if node is view.primary:
        words = f"the primary, at {node.reading.lsn}" if node.reading is not None else "the primary"
    else:
        reading = node.reading
        if reading is not None and demand.timeline and demand.timeline == reading.timeline:
            lacks = max(0, demand.floor - reading.lsn)
        words = f"would do, {_behind(staleness)}" if serves else _unfit(view, node, policy, demand, lacks, now)
    return NodeExplained(
        name=node.name,
        standing=standing,
        serves=serves,
        why=words,
        lacks=lacks,
        staleness=staleness,
    )


def _unfit(view: View, node: Node, policy: Policy, demand: Demand, lacks: int | None, now: float) -> str:
    standing, behind = view.standing(node, policy.max_lag, now), _behind(node.shown_staleness(now))
    # The decision for a picture in which no other replica is in rotation says what is missing in this one.
    alone = view.without(frozenset(each.name for each in view.nodes if each is not node))
    reason = route(alone, policy, demand, now, draw=first).reason
    if reason is Reason.NONE_CAUGHT_UP and lacks is not None:
        return f"lacks {lacks} bytes of what this client has seen, {behind}"
    if reason is Reason.ALL_LAGGING and standing is Standing.IN_ROTATION:
        return f"not fresh enough for this read, {behind}"
    if reason is Reason.OTHER_TIMELINE and standing is Standing.IN_ROTATION:
        return "cannot be compared with what this client has seen: another timeline"
    return f"in rotation, {behind}" if standing is Standing.IN_ROTATION else why(view, node, policy, now)


def _behind(staleness: float | None) -> str:
    return f"{staleness:.3g} s behind at most" if staleness is not None else "and its staleness is not known"


def _position(view: View, policy: Policy, position: Position, token: CausalToken, wall: float) -> PositionExplained:
    window = policy.sticky_window
    ours = position.system in {view.system, 0}
    in_doubt, expired = position.in_doubt(window, wall), position.expired(window, wall)
    age = wall - max(position.issued_at, position.in_doubt_at)
    parts = [f"{position.lsn} on timeline {position.timeline}" if position.timeline else "no position"]
    parts.append(_cluster(view, position, ours=ours))
    parts.append(f"issued {age:.0f} s ago" if age >= 0 else f"issued {-age:.0f} s ahead of this clock")
    if position.in_doubt_at:
        parts.append("a commit is in doubt: the primary" if in_doubt else "a commit was in doubt, and is no more")
    if token.in_crowd(window, wall):
        parts.append("one of many answers at once: a read must see all that is committed when it begins")
    if ours and position.timeline:
        parts.append(_against(view, position))
    if expired:
        parts.append("the window has passed")
    return PositionExplained(
        position=position, ours=ours, age=age, in_doubt=in_doubt, expired=expired, why=", ".join(parts)
    )


def _cluster(view: View, position: Position, *, ours: bool) -> str:
    if not position.system:
        return "of any cluster"
    if not view.system:
        return f"of cluster {position.system}, and which one is ours is not known"
    return f"of this cluster ({position.system})" if ours else f"of another cluster ({position.system})"


def _against(view: View, position: Position) -> str:
    """How the position compares with the cluster: its timeline, and how far the primary is."""
    if position.timeline > view.timeline:
        return f"a later timeline than {view.timeline}, the latest known here: another node was promoted"
    if position.timeline < view.timeline:
        return f"an earlier timeline than {view.timeline}: there was a failover"
    head = view.primary.reading if view.primary is not None else None
    if head is None:
        return "no primary to compare it with"
    ahead = int(head.lsn) - int(position.lsn)
    if ahead >= 0:
        return f"the primary is {ahead} bytes further"
    return f"{-ahead} bytes beyond what the primary had when it was last asked"
