"""Which replicas lack a position, and the words for it: what a deployment waits for."""

from collections.abc import Iterable
from math import isfinite

from lagwise._decide.token import CausalToken, Position
from lagwise._decide.view import Node, Standing, View
from lagwise.errors import NotCaughtUp

_AWAITED = frozenset({Standing.IN_ROTATION, Standing.LAGGING})


def target(view: View, token: CausalToken | None, since: float) -> Position | None:
    """The position that replicas must have; None while it is not known.

    That of the token, where it can be compared. Otherwise what the primary said at `since` (monotonic seconds) or
    later: everything committed before that moment is at or below it. So a doubt in the token, a token of a crowd, and a
    position of a timeline that is over are answered by the primary that there is now.
    """
    floor = token.floor(view.system) if token is not None else None
    if token is not None and floor is not None and floor.timeline:
        if floor.timeline > view.timeline and not view.denies(floor.timeline, since):
            return None  # another node was promoted: the primary in this picture is the deposed one
        exact = not (floor.in_doubt_at or token.crowded_until)
        if exact and floor.timeline == view.timeline and since >= view.suspect_until:
            return floor
    reading = view.primary.reading if view.primary is not None else None
    if reading is None or reading.at < since:
        return None
    return Position(system=reading.system, timeline=reading.timeline, lsn=reading.lsn)


def comparable(view: View, goal: Position) -> bool:
    """Whether what replicas have replayed can be compared with this position: not after a failover."""
    return goal.timeline == view.timeline and goal.system == view.system


def still_behind(view: View, goal: Position) -> tuple[Node, ...]:
    """The replicas that do not have `goal`: those in rotation, and those that lag, which come back by themselves.

    A node that serves no reads for another reason may never come back, and a deployment must not wait for it.
    """
    return tuple(node for node in _awaited(view) if not _has(node, goal))


def _awaited(view: View) -> Iterable[Node]:
    return (node for node in view.nodes if node.standing in _AWAITED and not node.drained)


def _has(node: Node, goal: Position) -> bool:
    return node.standing is Standing.IN_ROTATION and node.reading is not None and node.reading.lsn >= goal.lsn


def not_caught_up(view: View, goal: Position | None, timeout: float, now: float) -> NotCaughtUp:
    """The error when the time is over: who is behind, by how much, and what to do."""
    known = goal is not None and comparable(view, goal)
    nodes = still_behind(view, goal) if goal is not None and known else tuple(_awaited(view))
    what = "the position" if known else "the primary's position, which is unknown because no primary can be reached"
    behind = "; ".join(f"{node.name}: {_distance(node, goal if known else None, now)}" for node in nodes)
    return NotCaughtUp(
        f"after {timeout:g} s not every replica has {what}. {behind}. Wait longer, mend them, or db.drain() those that "
        "are not to be waited for."
    )


def _distance(node: Node, goal: Position | None, now: float) -> str:
    if node.standing is not Standing.IN_ROTATION or node.reading is None:
        return f"{node.standing} ({node.cause})" if node.cause is not None else str(node.standing)
    if goal is None:
        return str(node.standing)
    staleness = node.staleness(now)
    seconds = f", {staleness:.1f} s" if isfinite(staleness) else ""
    return f"{max(0, goal.lsn - node.reading.lsn)} bytes{seconds} behind"
