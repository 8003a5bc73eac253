"""Read from PostgreSQL replicas without reading the past: a read/write-splitting session router."""

from lagwise.causality import Causality
from lagwise.errors import InvalidToken, NoPrimary, NoReplica, NotOpen, ReadOnly, RoutingError
from lagwise.lsn import LSN
from lagwise.policy import Policy
from lagwise.pools import Replica
from lagwise.route import Reason, Route
from lagwise.router import Router
from lagwise.token import CausalToken

__all__ = [
    "LSN",
    "CausalToken",
    "Causality",
    "InvalidToken",
    "NoPrimary",
    "NoReplica",
    "NotOpen",
    "Policy",
    "ReadOnly",
    "Reason",
    "Replica",
    "Route",
    "Router",
    "RoutingError",
]
