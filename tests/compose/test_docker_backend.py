"""The test cluster in containers: what runs where a Docker engine answers and no PostgreSQL is installed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lagwise.testing import BinariesNotFound, Cluster, ClusterError
from lagwise.testing.backend import Backend
from lagwise.testing.choice import choose_backend
from lagwise.testing.container import HOST, DockerServer, Reach
from lagwise.testing.docker import DockerBackend, available

from .stack import VERSION, docker

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


def no_binaries(*_: object) -> None:
    """What find_binaries does on a machine without PostgreSQL."""
    message = "none here"
    raise BinariesNotFound(message)


@pytest.fixture(scope="module", params=["host", "bridge"])
async def cluster(engine: None, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A primary and two replicas in containers, reached in both of the ways there are."""
    if sys.platform != "linux":
        pytest.skip("needs an engine that shares this machine's network")
    reach = HOST
    if request.param == "bridge":
        # As with Docker Desktop, but that here the host is reached at the bridge and not at loopback.
        gateway = await asyncio.to_thread(
            docker, "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"
        )
        reach = Reach(host_network=False, listen=gateway.strip(), name="host.docker.internal")
    backend = await asyncio.to_thread(DockerBackend, int(VERSION), reach)
    async with Cluster(2, backend=backend) as cluster:
        yield cluster


async def test_a_cluster_in_containers_streams(cluster: Cluster) -> None:
    """A row written on the primary appears on both replicas, which are replicas."""
    await cluster.primary.execute("CREATE TABLE note (id int)")
    await cluster.primary.execute("INSERT INTO note VALUES (1)")
    await cluster.caught_up()
    shown = "SELECT format('%s %s', pg_is_in_recovery(), count(*)) FROM note"
    assert [await replica.fetchval(shown) for replica in cluster.replicas] == ["t 1", "t 1"]
    assert cluster.version.split(".")[0] == VERSION
    assert cluster.origin == f"Docker: postgres:{VERSION}"


async def test_a_server_in_a_container_stops_and_crashes_and_comes_back(cluster: Cluster) -> None:
    """stop, kill and start do to a container's server what they do to a process; the address stays."""
    replica = cluster["replica-1"]
    address = replica.server.address
    await cluster.stop(replica)
    assert not replica.running
    await cluster.start(replica)
    await cluster.kill(replica)
    assert not replica.running
    await cluster.start(replica)
    assert replica.running
    assert replica.server.address == address
    await cluster.caught_up()


async def test_a_cluster_in_containers_fails_over(cluster: Cluster) -> None:
    """A replica is promoted, the other follows it, and the old primary comes back as a replica."""
    await cluster.caught_up()
    await cluster.kill("primary")
    await cluster.promote("replica-1")
    await cluster.follow("replica-2")
    await cluster.start("primary")
    await cluster.rejoin("primary")
    await cluster.primary.execute("CREATE TABLE IF NOT EXISTS after_failover ()")
    await cluster.caught_up()
    seen = "SELECT to_regclass('after_failover') IS NOT NULL AND pg_is_in_recovery()"
    assert [await replica.fetchval(seen) for replica in cluster.replicas] == [True, True]


async def test_what_a_container_says_is_in_the_error(cluster: Cluster) -> None:
    """A server that does not start says why."""
    replica = cluster["replica-2"]
    server = replica.server
    assert isinstance(server, DockerServer)
    await cluster.stop(replica)
    server.run("follow", CONF="shared_buffers = 'much'\n")
    with pytest.raises(ClusterError, match="shared_buffers"):
        await cluster.start(replica)
    server.run("follow", CONF="")
    await cluster.rejoin(replica)
    assert replica.running


async def test_containers_serve_where_no_postgresql_is_installed(engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """choose_backend falls back to the engine, and close leaves no container."""
    monkeypatch.setattr("lagwise.testing.choice.find_binaries", no_binaries)
    backend: Backend = await asyncio.to_thread(choose_backend, major=int(VERSION))
    assert isinstance(backend, DockerBackend)
    server = await asyncio.to_thread(backend.create_primary, "primary", user="lagwise", password="it's", settings={})
    assert isinstance(server, DockerServer)
    own = ("ps", "--all", "--quiet", "--filter", f"id={server._container.get_container_id()}")
    assert await asyncio.to_thread(docker, *own) != ""
    await asyncio.to_thread(backend.close)
    await asyncio.to_thread(backend.close)
    assert await asyncio.to_thread(docker, *own) == ""
    with pytest.raises(ClusterError, match="closed"):
        await asyncio.to_thread(backend.create_primary, "late", user="u", password="p", settings={})


async def test_an_image_that_is_not_there_is_named(engine: None) -> None:
    """The error says which image could not be had."""
    with pytest.raises(ClusterError, match="postgres:1 is not here"):
        await asyncio.to_thread(DockerBackend, 1, HOST)


def test_without_an_engine_there_is_no_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing answers, choose_backend says that there is no PostgreSQL, and how to get one."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr("lagwise.testing.choice.find_binaries", no_binaries)
    assert available() is None
    with pytest.raises(BinariesNotFound):
        choose_backend()
