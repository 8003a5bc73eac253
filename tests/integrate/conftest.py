"""The cluster of the routing tests, with what these tests need in it, and a second cluster."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise.testing import Cluster
from tests.routing.application import Base
from tests.routing.conftest import cluster, db, running

__all__ = ["cluster", "db", "running"]

# Refuses at COMMIT, and only there, what carries this name.
REFUSED = "refused at commit"
_TRIGGER = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.name = '{REFUSED}' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.fixture(scope="session")
async def refusing(running: Cluster) -> str:
    """A name with which an item passes INSERT and fails COMMIT."""
    await running.primary.execute(_TRIGGER)
    return REFUSED


@pytest.fixture(scope="session")
async def second() -> AsyncIterator[Cluster]:
    """Another database cluster: a primary and one replica."""
    async with Cluster(replicas=1) as other:
        engine = create_async_engine(other.primary.direct_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()
        await other.caught_up()
        yield other


@pytest.fixture
async def elsewhere(second: Cluster) -> AsyncIterator[Cluster]:
    """The second cluster, healthy; mended afterwards."""
    yield second
    await second.heal()
    for replica in second.replicas:
        await second.resume_replay(replica)
    await second.caught_up()
