"""Health for load balancers: what the Router knows, as pydantic models, answered from memory."""

from datetime import UTC, datetime
from math import isfinite
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from lagwise._decide.view import Node, Standing, View
from lagwise._pools.counters import Counters, capacity, checked_out
from lagwise.errors import NotOpen
from lagwise.router import Router

Status = Literal["pass", "warn", "fail"]
_MEDIA_TYPE = "application/health+json"
_WELL = {Standing.PRIMARY, Standing.IN_ROTATION, Standing.DRAINED, Standing.SAME_SERVER}


class Check(BaseModel):
    """One observation, with the field names of draft-inadarei-api-health-check."""

    componentId: str  # noqa: N815 - the draft's spelling
    componentType: str = "datastore"  # noqa: N815 - the draft's spelling
    observedValue: str  # noqa: N815 - the draft's spelling
    status: Status
    time: datetime


class Health(BaseModel):
    """`pass` and `warn` are answered with 200, `fail` with 503."""

    status: Status
    checks: dict[str, list[Check]] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class NodeHealth(BaseModel):
    """One node, as last read. `error` is the class of the last failure, never its text."""

    status: Status
    standing: Standing
    in_rotation: bool
    role: Literal["primary", "replica"] | None
    timeline: int | None
    lsn: str | None
    staleness: float | None = Field(description="seconds behind the primary, at most; null while unknown")
    lag_bytes: int | None = Field(description="bytes of log the primary has written and this replica not replayed")
    reading_age: float | None = Field(description="seconds since this was read")
    weight: float
    drained: bool
    error: str | None


class Nodes(BaseModel):
    """Every node by name."""

    status: Status
    nodes: dict[str, NodeHealth]


class PoolHealth(BaseModel):
    """One pool of connections; counts. `overflow`, `capacity` and `utilisation` are null without a limit."""

    size: int | None
    checked_in: int | None
    checked_out: int
    overflow: int | None
    capacity: int | None
    utilisation: float | None
    waits: int
    timeouts: int
    opened: int
    opened_per_second: float = Field(description="connections opened per second, over the last ten seconds")
    longest_held: list[float] = Field(
        description="seconds for which sessions have held their connections, at most five"
    )


class PoolsHealth(BaseModel):
    """The pools of every node: `writing` for the primary's role, `reading` for a replica's."""

    status: Status
    pools: dict[str, dict[str, PoolHealth]]


def live() -> Health:
    """Always `pass`: the process answers."""
    return Health(status="pass")


def ready(db: Router, purpose: Literal["reads", "writes"] | None = None) -> Health:
    """Whether this application can serve reads, or with `purpose="writes"` writes.

    A dead or lagging replica is a warning: the others, or the primary, serve in its place.
    """
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


def health_router(db: Router) -> APIRouter:
    """`/live`, `/ready` (`?for=reads|writes`), `/nodes` and `/pools`; mount it with a prefix.

    200 for pass and warn, 503 for fail, as `application/health+json`. Nothing is asked of any database.
    """
    router = APIRouter(tags=["health"])
    fails: dict[int | str, dict[str, Any]] = {503: {"description": "fail", "content": {_MEDIA_TYPE: {}}}}

    @router.get("/live", response_model=Health)
    async def _live() -> Response:
        return _answer(live())

    @router.get("/ready", response_model=Health, responses=fails)
    async def _ready(
        purpose: Annotated[Literal["reads", "writes"] | None, Query(alias="for")] = None,
    ) -> Response:
        return _answer(ready(db, purpose))

    @router.get("/nodes", response_model=Nodes, responses=fails)
    async def _nodes() -> Response:
        return _answer(nodes(db))

    @router.get("/pools", response_model=PoolsHealth, responses=fails)
    async def _pools() -> Response:
        return _answer(pools(db))

    return router


def _answer(health: Health | Nodes | PoolsHealth) -> Response:
    return Response(
        health.model_dump_json(),
        status_code=503 if health.status == "fail" else 200,
        media_type=_MEDIA_TYPE,
        headers={"Cache-Control": "no-store"},
    )


def _node_status(view: View, node: Node, max_lag: float, now: float) -> Status:
    return "pass" if view.standing(node, max_lag, now) in _WELL else "warn"


def _node(view: View, node: Node, max_lag: float, now: float) -> NodeHealth:
    reading, standing = node.reading, view.standing(node, max_lag, now)
    is_primary = standing is Standing.PRIMARY
    staleness = 0.0 if is_primary else node.staleness(now)
    head = view.primary.reading.lsn if view.primary is not None and view.primary.reading is not None else None
    return NodeHealth(
        status=_node_status(view, node, max_lag, now),
        standing=standing,
        in_rotation=standing is Standing.IN_ROTATION,
        role=reading.role.value if reading is not None else None,
        timeline=reading.timeline if reading is not None else None,
        lsn=str(reading.lsn) if reading is not None else None,
        staleness=round(staleness, 6) if isfinite(staleness) else None,
        lag_bytes=max(0, head - reading.lsn) if head is not None and reading is not None else None,
        reading_age=round(now - reading.at, 6) if reading is not None else None,
        weight=node.weight,
        drained=node.drained,
        error=node.error,
    )


def _pool(pool: object, tally: Counters) -> PoolHealth:
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
        waits=tally.waits,
        timeouts=tally.timeouts,
        opened=tally.opened,
        opened_per_second=round(tally.opened_per_second(now), 2),
        longest_held=[round(seconds, 3) for seconds in tally.longest_held(now)],
    )
