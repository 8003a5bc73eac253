"""Read from PostgreSQL replicas without reading the past: a read/write-splitting session router."""

from lagwise._client.causality import Causality
from lagwise._decide.lsn import LSN
from lagwise._decide.route import Reason, Route
from lagwise._decide.token import CausalToken
from lagwise._pools.targets import Replica
from lagwise.errors import (
    InvalidToken,
    NoPrimary,
    NoReplica,
    NotCaughtUp,
    NotOpen,
    ReadOnly,
    RoutingError,
    StatementTimeout,
)
from lagwise.policy import Policy
from lagwise.router import Router

__all__ = [
    "LSN",
    "CausalToken",
    "Causality",
    "InvalidToken",
    "NoPrimary",
    "NoReplica",
    "NotCaughtUp",
    "NotOpen",
    "Policy",
    "ReadOnly",
    "Reason",
    "Replica",
    "Route",
    "Router",
    "RoutingError",
    "StatementTimeout",
]
