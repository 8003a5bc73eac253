"""Health for load balancers: what the Router knows, answered from memory."""

from lagwise._extras import extra

with extra("fastapi", "lagwise.health"):
    import fastapi as _  # noqa: F401

from lagwise.health.answers import live, nodes, pools, ready
from lagwise.health.draining import ProcessDrain
from lagwise.health.endpoints import health_router
from lagwise.health.models import (
    Check,
    Happening,
    Health,
    HeldBackReads,
    NodeHealth,
    Nodes,
    Overview,
    PoolHealth,
    PoolsHealth,
    Routes,
    Staleness,
)

__all__ = [
    "Check",
    "Happening",
    "Health",
    "HeldBackReads",
    "NodeHealth",
    "Nodes",
    "Overview",
    "PoolHealth",
    "PoolsHealth",
    "ProcessDrain",
    "Routes",
    "Staleness",
    "health_router",
    "live",
    "nodes",
    "pools",
    "ready",
]
