"""What there is to observe of a Router: read from memory when metrics are collected, in whichever thread does that."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from time import monotonic
from typing import Literal

from lagwise._decide.view import Node, Standing, View
from lagwise._nodes.tally import LABELS, Tally
from lagwise._pools.counters import Counters, capacity, checked_out
from lagwise.router import Router

NODE = "lagwise.node"
POOL = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"

Points = Iterator[tuple[float, Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Observed:
    """One instrument, and the points it shows. `points` raises `NotOpen` for a Router that is closed."""

    name: str
    kind: Literal["counter", "up_down_counter", "gauge"]
    unit: str
    text: str
    points: Callable[[Router, Tally], Points]


def counters_of(db: Router) -> Iterator[tuple[str, Counters]]:
    """The counters of each pool, by the pool's name. On SQLite one pool serves both roles."""
    for node, pools in db.pools.items():
        writing = pools.tallies["writing"]
        for role, counters in pools.tallies.items():
            if role == "writing" or counters is not writing:
                yield f"{node}.{role}", counters


def _connections(db: Router, _: Tally) -> Points:
    for node, pools in db.pools.items():
        for role, engine in pools.in_use().items():
            pool, name = engine.sync_engine.pool, f"{node}.{role}"
            yield checked_out(pool), {POOL: name, _STATE: "used"}
            if (idle := getattr(pool, "checkedin", None)) is not None:  # pools that keep no connection have none
                yield idle(), {POOL: name, _STATE: "idle"}


def _most(db: Router, _: Tally) -> Points:
    for node, pools in db.pools.items():
        for role, engine in pools.in_use().items():
            most = capacity(engine.sync_engine.pool)
            if isfinite(most):
                yield int(most), {POOL: f"{node}.{role}"}


def _pending(db: Router, _: Tally) -> Points:
    return ((counters.waiting, {POOL: name}) for name, counters in counters_of(db))


def _timeouts(db: Router, _: Tally) -> Points:
    return ((counters.timeouts, {POOL: name}) for name, counters in counters_of(db))


def _counted(name: str, _: Router, tally: Tally) -> Points:
    """What the tally counts under this name."""
    for key, count in tally.counted(name).items():
        yield count, {f"lagwise.{label}": word for label, word in zip(LABELS[name], key, strict=True)}


def _of_nodes(value: Callable[[View, Node, float], float | None], db: Router, _: Tally) -> Points:
    """A number of each node for which it is known."""
    view, now = db.view, monotonic()
    for node in view.nodes:
        known = value(view, node, now)
        if known is not None:
            yield known, {NODE: node.name}


def _of_all(value: Callable[[Router], float | None], db: Router, _: Tally) -> Points:
    known = value(db)
    if known is not None:
        yield known, {}


def _staleness(_: View, node: Node, now: float) -> float | None:
    return node.shown_staleness(now)


def _lag(view: View, node: Node, _now: float) -> int | None:
    return view.lag(node)


def _age(_: View, node: Node, now: float) -> float | None:
    return max(0.0, now - node.reading.at) if node.reading is not None else None


def _is_primary(_: View, node: Node, _now: float) -> int:
    return int(node.standing is Standing.PRIMARY)


def _in_rotation(db: Router, _: Tally) -> Points:
    view, now, max_lag = db.view, monotonic(), db.policy.max_lag
    for node in view.nodes:
        yield int(view.standing(node, max_lag, now) is Standing.IN_ROTATION), {NODE: node.name}


def _held_back(db: Router, _: Tally) -> Points:
    shadow = db.shadow
    yield shadow.on_replicas, {"lagwise.would": "replica"}
    yield shadow.reads - shadow.on_replicas, {"lagwise.would": "primary"}


def _counter(name: str, unit: str, text: str) -> Observed:
    return Observed("lagwise." + name.replace("tokens_", "tokens."), "counter", unit, text, partial(_counted, name))


POOLS = (
    Observed("db.client.connection.count", "up_down_counter", "{connection}", "Connections that are open, by state.",
             _connections),
    Observed("db.client.connection.max", "up_down_counter", "{connection}", "Connections that the pool opens at most.",
             _most),
    Observed("db.client.connection.pending_requests", "up_down_counter", "{request}",
             "Sessions that wait for a connection.", _pending),
    Observed("db.client.connection.timeouts", "counter", "{timeout}", "Sessions that got no connection in time.",
             _timeouts),
)  # fmt: skip
COUNTERS = (
    _counter("routes", "{session}", "Sessions that got a node."),
    _counter("waits", "{session}", "Sessions that waited for a better view of the nodes."),
    _counter("fall_backs", "{session}", "Reads that the primary served for want of a replica."),
    _counter("retries", "{read}", "Reads that failed on a node and ran again."),
    _counter("refusals", "{session}", "Sessions that no node could serve."),
    _counter("tokens_brought", "{token}", "Requests that opened a session and had brought a causal token."),
    _counter("tokens_ignored", "{token}", "Texts that clients brought and that are no tokens of this application."),
    _counter("tokens_issued", "{token}", "Answers that carried a causal token to their client."),
    _counter("positions", "{commit}", "Commits of clients with a token, by where their position is from."),
    _counter("evictions", "{change}", "How often a replica left the rotation."),
    _counter("returns", "{change}", "How often a replica came back into rotation."),
    _counter("promotions", "{change}", "How often a node was promoted."),
)
HELD_BACK = (
    Observed("lagwise.held_back.reads", "counter", "{read}",
             "Reads held back on the primary, by the role of the node that would have served them.", _held_back),
    Observed("lagwise.held_back.waits", "counter", "{read}", "Of these, reads that would have waited for a replica.",
             partial(_of_all, lambda db: db.shadow.would_wait)),
    Observed("lagwise.held_back.naively_stale", "counter", "{read}",
             "Of these, reads that a naive split would have shown a state before their own client's write; expected.",
             partial(_of_all, lambda db: db.shadow.naively_stale)),
)  # fmt: skip
GAUGES = (
    Observed("lagwise.node.staleness", "gauge", "s", "By how much a node may be behind the primary, at most.",
             partial(_of_nodes, _staleness)),
    Observed("lagwise.node.lag", "gauge", "By", "Log that the primary has written and this node has not replayed.",
             partial(_of_nodes, _lag)),
    Observed("lagwise.node.reading_age", "gauge", "s", "How long ago the node was read.", partial(_of_nodes, _age)),
    # Units in braces are notes. As "1" they would be ratios, and be called so by exporters.
    Observed("lagwise.node.in_rotation", "gauge", "{node}", "1 for a replica that reads may use now.", _in_rotation),
    Observed("lagwise.node.primary", "gauge", "{node}", "1 for the node that takes writes.",
             partial(_of_nodes, _is_primary)),
    Observed("lagwise.max_lag", "gauge", "s", "The bound on staleness that the policy sets.",
             partial(_of_all, lambda db: db.policy.max_lag)),
    Observed("lagwise.monitor.blind", "gauge", "{monitor}",
             "1 when the monitor has ended and nothing is learned of the nodes any more.",
             partial(_of_all, lambda db: int(db.blind))),
    Observed("lagwise.sticky_clients", "up_down_counter", "{client}",
             "Requests and jobs under way that were sent to the primary for their own writes.",
             partial(_of_all, lambda db: db.sticky_clients)),
    Observed("lagwise.fall_back_places.used", "up_down_counter", "{session}",
             "Sessions that hold one of the fall_back_limit places on the primary.",
             partial(_of_all, lambda db: db.fallen_back)),
    Observed("lagwise.offload", "gauge", "{share}", "The share of clients whose reads may go to replicas, 0 to 1.",
             partial(_of_all, lambda db: db.offload)),
    Observed("lagwise.fall_back_places.limit", "up_down_counter", "{session}", "The fall_back_limit of the policy.",
             partial(_of_all, lambda db: db.policy.fall_back_limit)),
)  # fmt: skip
