"""The real cluster of the routing tests, and a second one for what needs two databases."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise.testing import Cluster

from ..routing.application import Base
from ..routing.conftest import cluster, running

__all__ = ["archive", "cluster", "running"]


@pytest.fixture(scope="session")
async def archive() -> AsyncIterator[Cluster]:
    """Another database: a primary alone, with the same tables."""
    async with Cluster(replicas=0) as cluster:
        engine = create_async_engine(cluster.primary.direct_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()
        yield cluster
