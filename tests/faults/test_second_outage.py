"""After a failover the new primary dies as well, before its replicas have written down that they follow it."""

import pytest

from lagwise import Causality, NoPrimary, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import QUICK, in_rotation, router
from tests.kit.sessions import count, write

CONTROL = "SELECT timeline_id FROM pg_control_checkpoint()"
RECEIVERS = "SELECT count(*) FROM pg_stat_wal_receiver"


async def failed_over(cluster: Cluster, db: Router) -> None:
    """The primary dies, replica-1 takes its place, and replica-2 follows it."""
    await in_rotation(db, "replica-1", "replica-2")
    await cluster.kill("primary")
    await cluster.promote("replica-1")
    await cluster.follow("replica-2")
    await in_rotation(db, "replica-2")


async def test_reads_go_on_when_the_new_primary_dies_as_well(doomed: Cluster) -> None:
    """As without a failover before it: replicas serve, and a token is honoured."""
    async with router(doomed, QUICK) as db:
        await failed_over(doomed, db)
        with Causality() as seen:
            assert await write(db, "on the new primary") == "replica-1"
        await doomed.caught_up()
        last = doomed["replica-2"]
        head = await doomed.primary.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        await wait_until(
            lambda: (reading := db.view.node("replica-2").reading) is not None and reading.lsn >= head,
            what="the Router knows what the replica has",
        )
        await doomed.kill("replica-1")
        await wait_until(lambda: db.view.primary is None, what="the new primary is missed")

        async def without_receiver() -> bool:
            return bool(await last.fetchval(RECEIVERS) == 0)

        await wait_until(without_receiver, what="the replica has no receiver any more")
        asked = db.view.at
        await wait_until(lambda: read_since(db, asked), what="the replica has said so")
        assert (await last.fetchval(CONTROL), db.view.timeline) == (1, 2)
        assert db.serves(write=False)
        for token in (None, seen.token):
            with Causality(token):
                async with db.read() as session:
                    assert await count(session, "on the new primary") == 1
                    assert session.info["lagwise.route"].node == "replica-2"
        with pytest.raises(NoPrimary):
            await write(db, "there is none")


def read_since(db: Router, moment: float) -> bool:
    """Whether the replica has answered a probe that was sent later than this."""
    reading = db.view.node("replica-2").reading
    return reading is not None and reading.at > moment
