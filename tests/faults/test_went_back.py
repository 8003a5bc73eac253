"""A replica that crashes opens at an earlier position than it has shown: nothing is read there on the old reading."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import text

from lagwise import Causality, Router, RoutingError
from lagwise.testing import Cluster, wait_until

READS = 12


@pytest.fixture
async def apart() -> AsyncIterator[Cluster]:
    """A primary and a replica that opens at its last checkpoint, and replays what came after it when it is told to."""
    async with Cluster(replicas=1, settings={"checkpoint_timeout": "1h", "bgwriter_lru_maxpages": 0}) as cluster:
        await cluster.primary.execute("CREATE TABLE item (id int)")
        await cluster.caught_up()
        yield cluster


async def test_a_crash_that_the_process_has_not_noticed_uncovers_nothing(apart: Cluster) -> None:
    """An endpoint holds the event loop while the replica crashes and is up again; then all requests run at once."""
    replica = apart["replica-1"]
    missed: list[str] = []
    async with Router(apart.primary.direct_url, {"replica-1": replica.direct_url}) as db:
        for number in range(4):
            await apart.set_apply_delay("replica-1", 0)
            await replica.execute("CHECKPOINT")
            await wait_until(lambda: db.view.rotation, what="the replica serves")
            with Causality() as seen:
                async with db.write.begin() as session:
                    await session.execute(text(f"INSERT INTO item VALUES ({number})"))

            async def found(number: int = number, token: str = str(seen.token)) -> tuple[str, int]:
                with Causality(token):
                    async with db.read() as session:
                        count = await session.scalar(text(f"SELECT count(*) FROM item WHERE id = {number}"))
                        return str(session.info["lagwise.route"]), count or 0

            async def read_on_the_replica() -> bool:
                return (await found())[0].startswith("replica-1")

            await wait_until(read_on_the_replica, what="the replica shows the row")
            await apart.set_apply_delay("replica-1", 60)  # what its log has after the checkpoint takes its time

            async def request(steps: int) -> None:
                for _ in range(steps):
                    await asyncio.sleep(0)
                with suppress(RoutingError):
                    where, count = await found()
                    if not count:
                        missed.append(where)

            replica.server.kill()  # on the event loop, which is held meanwhile
            replica.server.start()
            await asyncio.gather(*(request(steps) for steps in range(READS)))
    assert missed == []
