"""What the Router knows, as values of health: answered from memory."""

from datetime import UTC, datetime
from math import isfinite
from time import monotonic
from typing import Literal

from lagwise._decide.view import Node, Standing, View
from lagwise._pools.counters import Counters, capacity, checked_out
from lagwise.errors import NotOpen
from lagwise.health.draining import ProcessDrain
from lagwise.health.models import Check, Health, NodeHealth, Nodes, PoolHealth, PoolsHealth, Status
from lagwise.router import Router

WELL = {Standing.PRIMARY, Standing.IN_ROTATION, Standing.DRAINED, Standing.SAME_SERVER}
"""Where a node may stand without a warning."""


def live() -> Health:
    """Always `pass`: the process answers."""
    return Health(status="pass")


def ready(db: Router, purpose: Literal["reads", "writes"] | None = None, drain: ProcessDrain | None = None) -> Health:
    """Whether this application can serve reads, or with `purpose="writes"` writes.

    A dead or lagging replica is a warning: the others, or the primary, serve in its place. With a `drain` that has
    begun it is a failure, whatever the nodes are like.
    """
    if drain is not None and drain.begun:
        return Health(status="fail", notes=["draining"])
    try:
        view = db.view
    except NotOpen:
        return Health(status="fail", notes=["the Router is not open"])
    now, time = monotonic(), datetime.now(UTC)
    max_lag = db.policy.max_lag
    checks = {
        f"{node.name}:standing": [
            Check(
                componentId=node.name,
                observedValue=view.standing(node, max_lag, now),
                status=_node_status(view, node, max_lag, now),
                time=time,
            )
        ]
        for node in view.nodes
    }
    status: Status = "pass" if all(check.status == "pass" for each in checks.values() for check in each) else "warn"
    notes: list[str] = []
    if db.blind:
        status, notes = "fail", ["the monitor has ended: nothing is learned of the nodes any more; restart the process"]
    elif not db.serves(write=purpose == "writes"):
        status = "fail"
    if db.offload < 1:
        notes.append(f"offload is {db.offload:g}: the reads of the other clients are held back on the primary")
    return Health(status=status, checks=checks, notes=notes)


def nodes(db: Router) -> Nodes:
    """Every node with its position, its staleness and its standing."""
    try:
        view = db.view
    except NotOpen:
        return Nodes(status="fail", nodes={})
    now = monotonic()
    found = {node.name: _node(view, node, db.policy.max_lag, now) for node in view.nodes}
    return Nodes(status=ready(db).status, nodes=found)


def pools(db: Router) -> PoolsHealth:
    """Every pool with its numbers."""
    try:
        db.require_open()
    except NotOpen:
        return PoolsHealth(status="fail", pools={})
    found = {
        name: {role: _pool(engine.sync_engine.pool, each.tallies[role]) for role, engine in each.in_use().items()}
        for name, each in db.pools.items()
    }
    full = any(pool.utilisation == 1 for roles in found.values() for pool in roles.values())
    return PoolsHealth(status="warn" if full else "pass", pools=found)


def _node_status(view: View, node: Node, max_lag: float, now: float) -> Status:
    return "pass" if view.standing(node, max_lag, now) in WELL else "warn"


def _node(view: View, node: Node, max_lag: float, now: float) -> NodeHealth:
    reading, standing = node.reading, view.standing(node, max_lag, now)
    staleness = node.shown_staleness(now)
    return NodeHealth(
        status=_node_status(view, node, max_lag, now),
        standing=standing,
        in_rotation=standing is Standing.IN_ROTATION,
        role=reading.role.value if reading is not None else None,
        timeline=reading.timeline if reading is not None else None,
        lsn=str(reading.lsn) if reading is not None else None,
        staleness=round(staleness, 6) if staleness is not None else None,
        lag_bytes=view.lag(node),
        reading_age=round(now - reading.at, 6) if reading is not None else None,
        weight=node.weight,
        drained=node.drained,
        error=node.error,
    )


def _pool(pool: object, counters: Counters) -> PoolHealth:
    size, idle, over = (getattr(pool, name, None) for name in ("size", "checkedin", "overflow"))
    most, out = capacity(pool), checked_out(pool)  # type: ignore[arg-type]
    limited, now = isfinite(most), monotonic()
    return PoolHealth(
        size=size() if size is not None else None,
        checked_in=idle() if idle is not None else None,
        checked_out=out,
        overflow=max(0, over()) if over is not None else None,
        capacity=int(most) if limited else None,
        utilisation=round(out / most, 4) if limited and most else None,
        waits=counters.waits,
        timeouts=counters.timeouts,
        opened=counters.opened,
        opened_per_second=round(counters.opened_per_second(now), 2),
        longest_held=[round(seconds, 3) for seconds in counters.longest_held(now)],
    )
