"""One cluster for all patterns: each replica shows a commit 200 ms late, so that a stale read is seen."""

import importlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise.testing import Cluster
from tests.kit.application import create_tables
from tests.kit.patterns import LAG

# No superuser: row security binds it, as it binds an application's role. docs/permissions.md says why pg_monitor.
_ROLE = """
CREATE ROLE shop LOGIN PASSWORD 'for tests only';
GRANT pg_monitor TO shop;
GRANT CREATE ON DATABASE app TO shop;
GRANT CREATE ON SCHEMA public TO shop;
"""


@pytest.fixture(scope="session")
async def lagging() -> AsyncIterator[Cluster]:
    """A primary and two replicas, and the environment in which the examples find them."""
    with pytest.MonkeyPatch.context() as environment:
        async with Cluster(replicas=2) as cluster:
            await cluster.primary.execute(_ROLE)
            as_shop = [
                make_url(node.url).set(username="shop", password="for tests only").render_as_string(hide_password=False)
                for node in cluster.nodes.values()
            ]
            environment.setenv("LAGWISE_PRIMARY", as_shop[0])
            environment.setenv("LAGWISE_REPLICAS", ",".join(as_shop[1:]))
            environment.setenv("LAGWISE_SECRET", "a secret for tests")
            from examples.patterns.models import Base

            importlib.import_module("examples.patterns.json_codecs")  # has one more table

            engine = create_async_engine(as_shop[0])
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            await engine.dispose()
            await create_tables(cluster)
            for replica in cluster.replicas:
                await cluster.set_apply_delay(replica, LAG)
            yield cluster
