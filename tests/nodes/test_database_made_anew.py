"""After a failover the application's database is dropped and made anew, or swapped: on a real cluster."""

import logging

import pytest
from sqlalchemy import URL, make_url, text

from lagwise import Policy, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.logs import event_of

QUICK = Policy(max_lag=1, sticky_window=1, probe_interval=0.05, probe_timeout=0.5)

MADE_ANEW = ("DROP DATABASE shop WITH (FORCE)", "CREATE DATABASE shop")
SWAPPED = (
    "CREATE DATABASE restored",
    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop';
       ALTER DATABASE shop RENAME TO retired; ALTER DATABASE restored RENAME TO shop""",
)


async def answers(db: Router) -> tuple[str, str]:
    """Where a write goes, and a read."""
    async with db.write.begin() as writing:
        await writing.execute(text("SELECT 1"))
        wrote = writing.info["lagwise.route"].node
    async with db.read() as reading:
        await reading.execute(text("SELECT 1"))
        return wrote, reading.info["lagwise.route"].node


@pytest.mark.parametrize("deposed", [False, True], ids=["old primary gone", "old primary still there"])
@pytest.mark.parametrize("how", [MADE_ANEW, SWAPPED], ids=["made anew", "swapped"])
async def test_after_a_failover_writes_come_back(
    how: tuple[str, ...], deposed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a restart, and with one: the node configured as primary cannot say which database is ours now."""
    async with Cluster(replicas=2) as cluster:
        await cluster.primary.execute("CREATE DATABASE shop")
        await cluster.caught_up()
        primary, *replicas = (shop(node.url) for node in cluster.nodes.values())
        with caplog.at_level(logging.WARNING, "lagwise"):
            async with Router(primary, {f"replica-{n}": url for n, url in enumerate(replicas, 1)}, policy=QUICK) as db:
                await wait_until(lambda: len(db.view.rotation) == 2, what="both replicas in rotation")
                if not deposed:
                    await cluster.kill("primary")
                await cluster.promote("replica-1")
                await cluster.follow("replica-2")
                await wait_until(lambda: well(db), what="the promoted node leads", timeout=30)
                for statement in how:
                    await cluster.primary.execute(statement)

                def told() -> bool:
                    return "database-changed" in {event_of(record) for record in caplog.records}

                await wait_until(told, what="it is believed", timeout=30)
                await cluster.caught_up()
                await cluster.terminate_backends("replica-2")  # what is renamed keeps its sessions there
                await wait_until(lambda: well(db), what="the promoted node leads again", timeout=30)
                assert await answers(db) == ("replica-1", "replica-2")
        async with Router(primary, {f"replica-{n}": url for n, url in enumerate(replicas, 1)}, policy=QUICK) as db:
            await wait_until(lambda: well(db), what="a Router opened anew sees the same", timeout=30)
            assert await answers(db) == ("replica-1", "replica-2")


def shop(url: str) -> URL:
    """The URL of the application's database on this node."""
    return make_url(url).set(database="shop")


def well(db: Router) -> bool:
    """Whether the promoted node leads, and the other replica serves."""
    leads = db.view.primary is not None and db.view.primary.name == "replica-1"
    return leads and [node.name for node in db.view.rotation] == ["replica-2"]
