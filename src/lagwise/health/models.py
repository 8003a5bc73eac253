"""What health says: pydantic models, with the field names of draft-inadarei-api-health-check where it has them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from lagwise._decide.view import Standing
from lagwise.health.recent import Kind

Status = Literal["pass", "warn", "fail"]


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


class Staleness(BaseModel):
    """How stale each node was, one sample in each `interval`. All lists end with sample `last`, the oldest is first."""

    interval: float = Field(description="seconds from one sample to the next")
    last: int = Field(description="the number of the latest sample, for `?since=`; -1 before the first")
    seconds: dict[str, list[float | None]] = Field(description="by node; null while unknown, and for the primary")


class Routes(BaseModel):
    """Where sessions went in the last `seconds`, in this process; counts."""

    seconds: int
    by_reason: dict[str, int]
    refused: dict[str, int] = Field(description="sessions that no node may serve, by the class of their error")


class HeldBackReads(BaseModel):
    """What would have become of the reads that were held back on the primary since the Router was made; counts."""

    reads: int
    on_replicas: int = Field(description="those that a replica would have served")
    would_wait: int = Field(description="those that would have waited for a replica")
    naively_stale: float = Field(
        description="those that a naive split would have shown a state before their client's own write; expected"
    )


class Happening(BaseModel):
    """One event. Equal ones are one, with a `count`."""

    kind: Kind
    node: str | None
    text: str
    count: int
    first: datetime
    last: datetime


class Overview(BaseModel):
    """All that the status page shows: of the nodes as they are known to this process, and of this process alone."""

    status: Status
    summary: str = Field(description="the one sentence to read first")
    notes: list[str] = Field(description="what needs a look, in sentences")
    instance: str = Field(description="tells processes behind one address apart, for `?of=`")
    time: datetime
    refresh: float = Field(description="seconds until there may be news")
    reads: bool = Field(description="whether a read without a token would be served")
    writes: bool = Field(description="whether a write would be served")
    primary: str | None
    timeline: int | None
    nodes: dict[str, NodeHealth]
    pools: dict[str, dict[str, PoolHealth]]
    staleness: Staleness
    routes: Routes
    held_back: HeldBackReads | None = Field(description="null where no read was held back")
    events: list[Happening] = Field(description="the latest first, at most a hundred")
    policy: dict[str, bool | int | float | str | None]
