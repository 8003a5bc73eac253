"""One cluster for the tests that leave it as they found it, and what is needed to be somebody else."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from lagwise.testing import Binaries, BinariesNotFound, Cluster
from lagwise.testing.binaries import find_binaries


@pytest.fixture(scope="session")
async def shared() -> AsyncIterator[Cluster]:
    """A primary and two replicas, with a table ``note``, for the whole run."""
    async with Cluster(replicas=2) as cluster:
        await cluster.primary.execute("CREATE TABLE note (id int PRIMARY KEY)")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    """The shared cluster: healthy, caught up, the table empty; mended afterwards."""
    await shared.primary.execute("TRUNCATE note")
    await shared.caught_up()
    yield shared
    await shared.restore()
    for node in shared.nodes.values():
        node.proxy.reset_counts()


@pytest.fixture
def postgres() -> Callable[[int], Binaries]:
    """The binaries of one major version; skips the test where there are none."""

    def find(major: int) -> Binaries:
        try:
            return find_binaries(major, environ={})
        except BinariesNotFound:
            pytest.skip(f"no PostgreSQL {major} on this machine")

    return find


@pytest.fixture
def as_root() -> None:
    """Skips the test for everybody but root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")


@pytest.fixture
def spool() -> Iterator[Path]:
    """A directory for temporary files that everybody may use; what is left in it is a leak.

    Not under ``tmp_path``: pytest closes that to everybody else, again whenever another run of it starts.
    """
    place = Path(tempfile.mkdtemp(prefix="spool-"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)
