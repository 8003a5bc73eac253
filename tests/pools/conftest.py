"""A real primary and a replica, and the pools of one node."""

from collections.abc import AsyncIterator

import pytest

from lagwise.testing import Cluster


@pytest.fixture(scope="package")
async def shared() -> AsyncIterator[Cluster]:
    """A primary and a replica for all tests of this folder."""
    async with Cluster(replicas=1) as cluster:
        await cluster.primary.execute("CREATE SCHEMA tenant")
        await cluster.primary.execute("CREATE TABLE item (name text)")
        await cluster.caught_up()
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, healthy; mended afterwards."""
    yield shared
    await shared.heal()
    for node in shared.nodes.values():
        node.proxy.latency = 0.0
