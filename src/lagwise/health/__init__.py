"""Health for load balancers: what the Router knows, answered from memory."""

from lagwise.health.answers import live, nodes, pools, ready
from lagwise.health.draining import ProcessDrain
from lagwise.health.endpoints import health_router
from lagwise.health.models import Check, Health, NodeHealth, Nodes, PoolHealth, PoolsHealth

__all__ = [
    "Check",
    "Health",
    "NodeHealth",
    "Nodes",
    "PoolHealth",
    "PoolsHealth",
    "ProcessDrain",
    "health_router",
    "live",
    "nodes",
    "pools",
    "ready",
]
