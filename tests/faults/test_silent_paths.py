"""A path that drops the packets of one connection, while the node answers on all others: no request hangs."""

import asyncio
import socket
import sys
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Policy, Router
from lagwise._pools import setup
from lagwise._pools.internals import transport_of
from lagwise._pools.keepalive import keep_alive
from lagwise.testing import Cluster, wait_until
from tests.kit.paths import silent
from tests.kit.routers import in_rotation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the options and packet filters are those of Linux")

SECONDS = 2.0


def on_one_replica(cluster: Cluster, abort_after: float = SECONDS) -> Router:
    """A Router without the proxies of the cluster, whose own packets nothing drops; its reads have one connection."""
    policy = Policy(abort_after=abort_after, probe_timeout=5)
    replicas = {"replica-1": cluster.nodes["replica-1"].direct_url}
    return Router(cluster.primary.direct_url, replicas, policy=policy, pool_size=1, max_overflow=0)


async def read(db: Router) -> str:
    """One read; the node that served it."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        return str(session.info["lagwise.route"].node)


async def pooled(db: Router, role: str) -> Any:
    """The driver's connection that the pool of the replica, or of the primary, holds."""
    if role == "reading":
        await in_rotation(db, "replica-1")
        assert await read(db) == "replica-1"
    else:
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
    (driver,) = db.pools["replica-1" if role == "reading" else "primary"]._setups[role].drivers
    return driver


@pytest.mark.parametrize("kept", [True, False], ids=["kept alive", "naive"])
async def test_a_read_on_a_forgotten_connection_runs_on_another_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Its packets are dropped from before it begins. Without the kernel's help it waits for a quarter of an hour."""
    if not kept:
        monkeypatch.setattr(setup, "keep_alive", lambda *_, **__: None)  # the kernel's own defaults
    # A busy machine, on which the replica answers no probe for a while, must not end the naive wait.
    async with on_one_replica(cluster, SECONDS if kept else 60) as db:
        with silent(await pooled(db, "reading")):
            if kept:
                async with asyncio.timeout(10 * SECONDS):
                    assert await read(db) in db.pools
            else:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(5 * SECONDS):
                        await read(db)
        async with asyncio.timeout(10 * SECONDS):
            assert await read(db) in db.pools


@pytest.mark.parametrize("role", ["reading", "writing"])
async def test_a_quiet_connection_that_was_forgotten_is_closed_before_its_next_use(cluster: Cluster, role: str) -> None:
    """Three questions without an answer; then the pool opens another one, for writes as well."""
    async with on_one_replica(cluster) as db:
        driver = await pooled(db, role)
        with silent(driver):
            await wait_until(driver.is_closed, what="the end of the connection", timeout=20 * SECONDS)
            async with asyncio.timeout(10 * SECONDS):
                if role == "reading":
                    assert await read(db) in db.pools
                else:
                    async with db.write.begin() as session:
                        await session.execute(text("INSERT INTO item (name) VALUES ('after')"))


async def test_the_options_are_those_of_the_policy_and_reads_alone_end_unreceived(cluster: Cluster) -> None:
    """A batch that waits for a lock looks to Linux like a path that drops what is sent, so writes have no such end."""
    async with on_one_replica(cluster) as db:
        found = {}
        for role in ("reading", "writing"):
            link = transport_of(await pooled(db, role)).get_extra_info("socket")
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            found[role] = [link.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    assert found == {"reading": [2, 1, 3, 2000], "writing": [2, 1, 3, 0]}


class Handed:
    """A driver's connection on this socket."""

    def __init__(self, link: socket.socket | None) -> None:
        self._transport = self
        self._link = link

    def get_extra_info(self, name: str) -> socket.socket | None:
        """The socket."""
        return self._link if name == "socket" else None


@pytest.mark.parametrize(("seconds", "idle"), [(0.2, 1), (5.0, 5), (600.0, 600), (1e9, 32_767)])
def test_bounds(seconds: float, idle: int) -> None:
    """Whatever the policy says, the kernel takes it."""
    with socket.socket() as link:
        keep_alive(Handed(link), seconds, reads=True)
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == idle * 1000


def test_what_the_application_has_set_stays() -> None:
    """A connection that has the option already keeps its times."""
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        keep_alive(Handed(link), 5.0, reads=True)
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


def test_sockets_of_other_kinds_are_left_alone() -> None:
    """A Unix socket, one that is closed already, and a transport without a socket."""
    with socket.socket(socket.AF_UNIX) as link:
        keep_alive(Handed(link), 5.0, reads=True)
        assert link.fileno() >= 0
    keep_alive(Handed(link), 5.0, reads=True)
    keep_alive(Handed(None), 5.0, reads=True)
