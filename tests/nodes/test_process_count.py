"""How many processes may answer one client: counted on the primary, and where it cannot be counted, eight."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import make_url

from lagwise import Policy, Router
from lagwise._client import known
from lagwise.testing import Cluster, wait_until
from tests.kit.bouncer import bouncer
from tests.kit.routers import router

OFTEN = Policy(probe_interval=0.1, probe_timeout=5)
ANOTHER = """
import asyncio, sys
from lagwise import Router
async def main():
    async with Router(sys.argv[1]):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what other tests have left open."""
    monkeypatch.setattr(known, "processes", {})


@asynccontextmanager
async def process(url: str) -> AsyncIterator[None]:
    """One more process of the application."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ANOTHER, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        assert await running.stdout.readline() == b"open\n"
        yield
    finally:
        running.stdin.close()
        await running.wait()


def counted(count: int) -> bool:
    """Whether so many are known of every primary."""
    return [*known.processes.values()] == [count]


async def test_processes_come_and_go(cluster: Cluster) -> None:
    """Each is counted once, whatever the number of its nodes, and no more when it has ended."""
    async with router(cluster, OFTEN):
        assert counted(1), "it is known before the first request"
        async with AsyncExitStack() as others:
            for _ in range(3):
                await others.enter_async_context(process(cluster.primary.url))
            await wait_until(lambda: counted(4), what="all of them")
        await wait_until(lambda: counted(1), what="this one alone")
    assert not known.processes


async def test_another_application_of_the_server_is_not_counted(cluster: Cluster) -> None:
    """Its clients have other cookies."""
    await cluster.primary.execute("CREATE DATABASE another")
    url = make_url(cluster.primary.url).set(database="another").render_as_string(hide_password=False)
    async with process(url), router(cluster, OFTEN):
        assert counted(1)
    await cluster.primary.execute("DROP DATABASE another WITH (FORCE)")


async def test_a_promotion_moves_the_count(doomed: Cluster) -> None:
    """Only a primary is counted on; a demoted one is not."""
    async with router(doomed, OFTEN) as db:
        await doomed.promote("replica-1")
        await doomed.rejoin("primary", of="replica-1")

        def moved() -> bool:
            return db.view.primary is not None and db.view.primary.name == "replica-1" and counted(1)

        await wait_until(moved, what="the new primary, and it alone")


@pytest.mark.parametrize("setting", ["track_activities off", "may not ask"])
async def test_what_cannot_be_counted_is_eight(cluster: Cluster, setting: str) -> None:
    """A guess that leaves a client few slots, and a probe that succeeds all the same."""
    await cluster.primary.execute("CREATE ROLE blind LOGIN PASSWORD 'x'")
    if setting == "may not ask":
        undo = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(integer) TO public"
        await cluster.primary.execute(undo.replace("GRANT", "REVOKE").replace("TO", "FROM"))
    else:
        undo = "SELECT 1"
        await cluster.primary.execute("ALTER ROLE blind SET track_activities = off")
    try:
        url = make_url(cluster.primary.url).set(username="blind", password="x")
        async with Router(url, policy=OFTEN) as db:
            assert db.view.primary is not None
            assert counted(8)
    finally:
        await cluster.primary.execute(f"{undo}; DROP ROLE blind")


async def test_behind_a_pooler_it_is_eight(cluster: Cluster) -> None:
    """Server connections are not processes."""
    async with bouncer(cluster) as pooler, pooler.router(OFTEN):
        assert counted(8)
