"""A shared question shares its failure: all who wait for a silent node's position give up within one time-out."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Causality, Policy, Router
from lagwise._nodes.positions import Positions
from lagwise.testing import Cluster
from tests.kit.answers import stands_at

TIMEOUT = 0.2
WHERE = 0x2000060


class Driver:
    """A connection to a server that answers when it is told to; terminated, its question fails."""

    def __init__(self, log: list["Driver"]) -> None:
        self.log = log
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def fetchrow(self, _sql: str, **_how: Any) -> dict[str, Any]:
        self.log.append(self)
        return await self.answer

    def terminate(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError("terminated"))


async def test_forty_writers_share_one_time_out() -> None:
    """One question is sent into the silence, not forty; the next commit asks anew."""
    log: list[Driver] = []
    positions = Positions(timeout=TIMEOUT, clock=lambda: 0.0)
    writers = [asyncio.create_task(positions.after_commit(Driver(log))) for _ in range(40)]
    assert await asyncio.gather(*writers) == [None] * 40
    assert len(log) == 1
    later = asyncio.create_task(positions.after_commit(driver := Driver(log)))
    await asyncio.sleep(0)
    driver.answer.set_result(stands_at(WHERE))
    reading = await later
    assert reading is not None
    assert reading.lsn == WHERE


async def test_a_writer_that_gives_up_does_not_start_the_time_anew() -> None:
    """Clients are cancelled while they ask, one after the other: the last has waited for one time-out all the same."""
    log: list[Driver] = []
    positions = Positions(timeout=TIMEOUT, clock=lambda: 0.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    writers = [asyncio.create_task(positions.after_commit(Driver(log))) for _ in range(8)]
    while not all(each.done() for each in writers):
        await asyncio.sleep(TIMEOUT / 4)
        asking = next((each for each in writers if not each.done()), None)
        if len(log) <= 3 and asking is not None:
            asking.cancel()
    ends = await asyncio.gather(*writers, return_exceptions=True)
    assert 1 <= sum(isinstance(end, asyncio.CancelledError) for end in ends) <= 4
    assert len(log) <= 5  # each cancelled one's question, and the one that met the end of the time
    assert loop.time() - began < 3 * TIMEOUT


async def test_writers_of_a_primary_that_falls_silent() -> None:
    """Forty COMMITs are answered, then nothing is: all writers return within one time-out, with a token in doubt."""
    policy = Policy(probe_timeout=1.0, probe_interval=30, abort_after=60)
    async with Cluster(replicas=1) as cluster:
        await cluster.primary.execute("CREATE TABLE item (name text)")
        await cluster.primary.execute("DROP EXTENSION plpgsql")  # so the position is asked for after COMMIT
        async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=policy, pool_size=40) as db:
            reached, silent = asyncio.Barrier(41), asyncio.Event()
            after_commit = Positions.after_commit

            async def held(positions: Positions, driver: Any) -> Any:
                await reached.wait()
                await silent.wait()
                return await after_commit(positions, driver)

            async def write() -> Any:
                with Causality() as seen:
                    async with db.write.begin() as session:
                        await session.execute(text("INSERT INTO item VALUES ('x')"))
                return seen.token

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Positions, "after_commit", held)
                writers = [asyncio.create_task(write()) for _ in range(40)]
                await reached.wait()
                await cluster.black_hole("primary")
                began = asyncio.get_running_loop().time()
                silent.set()
                tokens = await asyncio.gather(*writers)
            assert asyncio.get_running_loop().time() - began < 2 * policy.probe_timeout
            assert all(token for token in tokens)
            await cluster.heal()
