"""How many processes may answer one client: counted on the primary, and where it cannot be counted, eight."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import make_url

from lagwise import LSN, Policy, Router
from lagwise._client import known
from lagwise._decide.view import Reading, Role
from lagwise._nodes.processes import Processes
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
        assert [*known.processes] != [], "something is known before the first request"
        await wait_until(lambda: counted(1), what="this one alone")
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
        await wait_until(lambda: counted(1), what="this one alone")
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


def reading(processes: int, role: Role = Role.PRIMARY) -> Reading:
    """An answer of a node with this count."""
    return Reading(role=role, system=7, timeline=1, lsn=LSN(1), at=0.0, processes=processes)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("count", [0, 3])
def test_the_rate_of_counting_is_bounded(role: Role, count: int) -> None:
    """Whatever the answer: sessions that wait may cause hundreds of probes in a second."""
    now = 0.0
    processes = Processes(lambda: now, countable=True)
    asked = 0
    for probe in range(1000):
        now = probe / 100
        asked += (due := processes.due)
        processes.heard(reading(count if due else 0, role), counted=due)
    assert asked == 5
    assert [*known.processes.values()] == ([] if role is Role.REPLICA else [count or 8])


def test_the_others_come_back_one_by_one() -> None:
    """After a restart of the primary the first to count sees itself alone: the count before still holds."""
    now = 0.0
    processes = Processes(lambda: now, countable=True)
    for count, known_then in (8, 8), (1, 8), (5, 5), (7, 7), (1, 7), (1, 1):
        processes.heard(reading(count), counted=True)
        assert counted(known_then)


async def test_another_privilege_that_is_missing_is_told_once(cluster: Cluster) -> None:
    """It is not taken for that of counting: the question is not repeated, and counting goes on when it is granted."""
    await cluster.primary.execute("CREATE ROLE limited LOGIN PASSWORD 'x'")
    await cluster.primary.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM public")
    try:
        url = make_url(cluster.primary.url).set(username="limited", password="x")
        async with Router(url, policy=OFTEN) as db:
            assert db.view.primary is None
            await cluster.primary.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO limited")
            await wait_until(lambda: counted(1), what="the count")
    finally:
        await cluster.primary.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO public")
        await cluster.primary.execute("DROP OWNED BY limited; DROP ROLE limited")
