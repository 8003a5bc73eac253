"""Which place the servers of a cluster run in: this machine, or containers."""

from __future__ import annotations

import importlib

from lagwise.testing.backend import Backend
from lagwise.testing.binaries import Binaries, find_binaries
from lagwise.testing.errors import BinariesNotFound
from lagwise.testing.local import LocalBackend


def choose_backend(binaries: Binaries | None = None, *, major: int | None = None) -> Backend:
    """Processes of this machine where a PostgreSQL is found, containers otherwise.

    Raises:
        BinariesNotFound: Neither is there.
        ClusterError: ``LAGWISE_PG_BIN`` or ``LAGWISE_PG_MAJOR`` is set and is of no use.
    """
    try:
        found = binaries or find_binaries(major)
    except BinariesNotFound:
        containers = _containers(major)
        if containers is None:
            raise
        return containers
    return LocalBackend(found)


def _containers(major: int | None) -> Backend | None:
    """A Docker backend, when its module, testcontainers and an engine that answers are all there."""
    try:
        docker = importlib.import_module("lagwise.testing.docker")
    except ImportError:
        return None
    backend: Backend | None = docker.available(major)
    return backend
