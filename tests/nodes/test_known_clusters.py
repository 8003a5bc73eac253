"""Which clusters a process knows: those of its open Routers, so that positions of another one mean the primary."""

from sqlalchemy import text

from lagwise import Causality, Router
from lagwise._client import known
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import PATIENT, in_rotation, quiet, router, stand_still
from tests.kit.sessions import write


async def route_of_a_read(db: Router, seen: Causality) -> str:
    """Where the next read of this client goes, and why."""
    with Causality(seen.token):
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
            return str(session.info["lagwise.route"])


async def test_a_cut_over_without_a_restart(cluster: Cluster, elsewhere: Cluster) -> None:
    """A token of the cluster that a closed Router was on reads from the primary, as in a process that never met it."""
    async with router(cluster, PATIENT) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as seen:
            await write(db, "before the cut-over")
    async with router(elsewhere, PATIENT) as db:
        await in_rotation(db, "replica-1")
        assert await route_of_a_read(db, seen) == "primary; reason=sticky"


async def test_what_a_closed_router_hears_makes_no_cluster_known(cluster: Cluster) -> None:
    """A session that outlives its Router loses its connection: the cluster stays forgotten."""
    async with router(cluster, PATIENT) as db:
        monitor = db._nodes.monitor
        system = db.view.system
        assert system in known.systems
    assert system not in known.systems
    monitor.lost("replica-1", "ConnectionResetError")
    assert system not in known.systems


async def test_another_router_on_the_cluster_makes_it_known_again(cluster: Cluster) -> None:
    """With its next reading; until then a token means the primary, which misses no write."""
    async with quiet(cluster) as db:
        await in_rotation(db, "replica-1", "replica-2")
        async with router(cluster, PATIENT) as closed:
            await in_rotation(closed, "replica-1", "replica-2")
            await stand_still(cluster)
            with Causality() as seen:
                await write(closed, "not on replicas yet")
        assert await route_of_a_read(db, seen) == "primary; reason=sticky"
        for replica in cluster.replicas:
            await cluster.resume_replay(replica)
        await cluster.caught_up()

        async def compared() -> bool:
            db._nodes.monitor.hurry(db.pools)  # else it asks once in a minute
            return (await route_of_a_read(db, seen)).endswith("reason=caught-up")

        await wait_until(compared, what="the cluster is known again")
