"""The tally: what became of sessions, tokens, commits and nodes, in numbers."""

from collections import defaultdict
from collections.abc import Callable

from lagwise._client.signature import NOT_SIGNED
from lagwise._decide.events import (
    Event,
    NodeChanged,
    PositionAsked,
    Promoted,
    Refused,
    Retried,
    Routed,
    TokenBrought,
    TokenIgnored,
    TokenIssued,
)
from lagwise._decide.route import Route
from lagwise._decide.token import OTHER_VERSION
from lagwise._pools.counters import Durations

Key = tuple[str, ...]
Counts = dict[Key, int]

LABELS: dict[str, Key] = {
    "routes": ("node", "reason", "role"),
    "waits": ("outcome",),
    "fall_backs": ("reason",),
    "retries": ("node", "failure"),
    "refusals": ("error", "role"),
    "tokens_brought": (),
    "tokens_ignored": ("why",),
    "tokens_issued": (),
    "positions": ("node", "outcome"),
    "evictions": ("node", "standing"),
    "returns": ("node",),
    "promotions": ("node",),
}
"""What is counted, and what the parts of its keys are: names of nodes, and words of fixed sets."""

_IN_ROTATION = "in-rotation"
_IGNORED = {NOT_SIGNED: "not-signed", OTHER_VERSION: "other-version"}


def _counts(_: str) -> Counts:
    return defaultdict(int)


class Tally:
    """Counts events: `db.watch(Tally())`. It grows by the names of nodes and by words of fixed sets, and no further.

    Args:
        counts: makes the mapping for one name of `LABELS`; a caller that has another place for the numbers has its own.

    Attributes:
        routes: sessions by node, reason, and role: `write` or `read`.
        waits: sessions that waited for a better View, by outcome: served by a `replica`, by the `primary`, `refused`.
        fall_backs: reads on the primary for want of a replica, by reason.
        retries: reads that failed on a node and ran again, by the kind of failure.
        refusals: sessions that no node could serve, by the class of their error, and role.
        tokens_brought, tokens_issued: requests that brought a token, and answers that carry one.
        tokens_ignored: texts that are no tokens of this application: `not-signed`, `malformed`, `other-version`.
        positions: commits by where their position is from: `with-commit`, `asked`, `shared` with another commit that
            asked, or `unknown`.
        evictions: how often a replica left the rotation, by its standing then; `returns`: how often it came back.
        promotions: how often a node was promoted.
        waited: how long sessions waited for a better View, of those that did.
        asked: how long commits took to get a position that the answer to COMMIT had not told.
    """

    def __init__(self, counts: Callable[[str], Counts] = _counts) -> None:
        self.routes = counts("routes")
        self.waits = counts("waits")
        self.fall_backs = counts("fall_backs")
        self.retries = counts("retries")
        self.refusals = counts("refusals")
        self.tokens_brought = counts("tokens_brought")
        self.tokens_ignored = counts("tokens_ignored")
        self.tokens_issued = counts("tokens_issued")
        self.positions = counts("positions")
        self.evictions = counts("evictions")
        self.returns = counts("returns")
        self.promotions = counts("promotions")
        self.waited, self.asked = Durations(), Durations()
        self._evicted = set[str]()

    def counted(self, name: str) -> Counts:
        """What is counted under one name of `LABELS`: a copy of now, in whatever thread asks."""
        counts: Counts = getattr(self, name)
        # In one step of the interpreter. A list of the items is not: it makes a tuple of each, which may collect
        # garbage, whose finalizers are Python, where the thread that counts gets its turn.
        return counts.copy()

    def routed(self, route: Route, write: bool) -> None:
        """Count a session that got its node: all there is to count where it got the node at once."""
        self.routes[route.node or "", route.reason, "write" if write else "read"] += 1

    def __call__(self, event: Event) -> None:
        """Count this event."""
        if isinstance(event, Routed):
            route = event.route
            self.routed(route, event.write)
            if route.fell_back:
                self.fall_backs[route.reason,] += 1
            if event.waited:
                self.waits["replica" if route.on_replica else "primary",] += 1
                self.waited.add(event.waited)
        elif isinstance(event, Refused):
            self.refusals[event.error, "write" if event.write else "read"] += 1
            if event.waited:
                self.waits["refused",] += 1
                self.waited.add(event.waited)
        elif isinstance(event, PositionAsked):
            self.positions[event.node, _outcome(event)] += 1
            if event.seconds is not None:
                self.asked.add(event.seconds)
        elif isinstance(event, TokenBrought):
            self.tokens_brought[()] += 1
        elif isinstance(event, TokenIssued):
            self.tokens_issued[()] += 1
        elif isinstance(event, TokenIgnored):
            self.tokens_ignored[_IGNORED.get(event.why, "malformed"),] += 1
        elif isinstance(event, Retried):
            self.retries[event.node, str(event.failure)] += 1
        else:
            self._count_node(event)

    def _count_node(self, event: Event) -> None:
        if isinstance(event, Promoted):
            self.promotions[event.node,] += 1
        elif isinstance(event, NodeChanged):
            if event.before == _IN_ROTATION:
                self._evicted.add(event.node)
                self.evictions[event.node, event.standing] += 1
            elif event.standing == _IN_ROTATION and event.node in self._evicted:
                # A node that comes for the first time, as all do when the Router opens, does not come back.
                self._evicted.discard(event.node)
                self.returns[event.node,] += 1


def _outcome(event: PositionAsked) -> str:
    if not event.found:
        return "unknown"
    if event.seconds is None:
        return "with-commit"
    return "shared" if event.shared else "asked"
