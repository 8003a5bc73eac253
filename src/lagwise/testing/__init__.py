"""Test support: a real PostgreSQL cluster, primary and streaming replicas, in about a second."""

from __future__ import annotations

from lagwise.testing.binaries import Binaries
from lagwise.testing.cluster import Cluster
from lagwise.testing.errors import BinariesNotFound, ClusterError
from lagwise.testing.gates import wait_until
from lagwise.testing.node import Node
from lagwise.testing.proxy import Proxy
from lagwise.testing.rolling_back import rolled_back
from lagwise.testing.routes import assert_route

__all__ = [
    "Binaries",
    "BinariesNotFound",
    "Cluster",
    "ClusterError",
    "Node",
    "Proxy",
    "assert_route",
    "rolled_back",
    "wait_until",
]
