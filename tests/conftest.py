"""The clusters of the tests, healthy before each of them, and Routers on them.

Each worker has one cluster of a primary and two replicas for its whole run; a test that leaves more behind than rows
takes a cluster of its own.
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lagwise import Router
from lagwise.testing import Cluster
from tests.kit.application import create_tables
from tests.kit.routers import PATIENT, QUICK, both_in_rotation, in_rotation, router, stand_still

# Many tests start processes: without bytecode each would compile lagwise anew, and each run all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same examples in every run: what a search has found is mended in a change of its own.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

# Refuses at COMMIT, and only there, what carries this name.
REFUSED = "refused at commit"
_TRIGGER = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.name = '{REFUSED}' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: a worker that took it up at the end would be waited for."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data in memory where there is plenty of it: a cluster is up in a third of the time that a disk takes."""
    tmp_path_factory.getbasetemp()  # chosen before, so that pytest's own files, which it keeps, stay on the disk
    place = Path("/dev/shm")
    with pytest.MonkeyPatch.context() as patch:
        if place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 6 * 2**30:
            patch.setenv("TMPDIR", str(place))
            patch.setattr("tempfile.tempdir", str(place))
        yield


@pytest.fixture(scope="session")
async def running(memory: None) -> AsyncIterator[Cluster]:
    """A primary and two replicas with the tables, for the whole run."""
    async with Cluster(replicas=2) as cluster:
        await create_tables(cluster)
        yield cluster


@pytest.fixture
async def cluster(running: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, healthy; mended afterwards."""
    yield running
    await running.restore()


@pytest.fixture
async def lagging(cluster: Cluster) -> Cluster:
    """The cluster, with replicas that show a commit 200 ms after it was made: a pattern that reads the past fails."""
    for replica in cluster.replicas:
        await cluster.set_apply_delay(replica, 0.2)
    return cluster


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Router]:
    """An open Router on the whole cluster, both replicas in rotation."""
    async with router(cluster) as db:
        await in_rotation(db, "replica-1", "replica-2")
        yield db


@pytest.fixture
async def quick(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router that notices a fault soon, both replicas in rotation, no time-out configured by the application."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        yield db


@pytest.fixture
async def still(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router whose replicas show what there was, and nothing that comes."""
    async with router(cluster, PATIENT) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        yield db


@pytest.fixture
async def doomed() -> AsyncIterator[Cluster]:
    """A cluster for one test, with the tables: faults may leave anything behind, what is promoted stays promoted."""
    async with Cluster(replicas=2) as cluster:
        await create_tables(cluster)
        yield cluster


@pytest.fixture(scope="session")
async def second(memory: None) -> AsyncIterator[Cluster]:
    """Another database cluster: a primary and one replica."""
    async with Cluster(replicas=1) as other:
        await create_tables(other)
        yield other


@pytest.fixture
async def elsewhere(second: Cluster) -> AsyncIterator[Cluster]:
    """The second cluster, healthy; mended afterwards."""
    yield second
    await second.restore()


@pytest.fixture
async def refusing(cluster: Cluster) -> AsyncIterator[str]:
    """A name with which an item passes INSERT and fails COMMIT."""
    await cluster.primary.execute(_TRIGGER)
    yield REFUSED
    await cluster.primary.execute("DROP FUNCTION refuse() CASCADE")
