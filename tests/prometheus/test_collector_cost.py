"""What a collector costs a read that nothing is scraped for, of everything that the read executes."""

from collections.abc import Awaitable, Callable
from statistics import median

from sqlalchemy import text

from lagwise import Causality, Router
from lagwise.prometheus import Collector
from lagwise.testing import Cluster
from tests.kit.counting import instructions
from tests.kit.routers import LONG, in_rotation

SHARE = 0.01
TIMES = 9


async def executed(use: Callable[[], Awaitable[None]]) -> float:
    """All instructions of the use, SQLAlchemy's and the driver's as well: the median of a few times."""
    counts = []
    for _ in range(TIMES):
        with instructions() as counted:
            await use()
        counts += counted
    return median(counts)


async def test_a_read_costs_one_percent_more_at_most(cluster: Cluster) -> None:
    """With a collector a plain read, and one of a client with a token, execute 1 % more instructions at most."""
    # One replica: of two a read draws one at random, which costs more or less.
    async with Router(cluster.primary.url, [cluster.replicas[0].url], policy=LONG, pool_size=2) as db:
        await in_rotation(db, "replica-1")
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('counted with a collector')"))
        await cluster.caught_up()

        async def read() -> None:
            async with db.read() as session:
                await session.execute(text("SELECT 1"))

        async def with_token() -> None:
            with Causality(seen.token):
                await read()

        for use in (read, with_token):
            await compare(db, use)


async def compare(db: Router, use: Callable[[], Awaitable[None]]) -> None:
    """Without a collector, with one, and without again."""
    for _ in range(20):
        await use()
    without = await executed(use)
    collector = Collector(db)
    await use()
    watched = await executed(use)
    collector.close()
    again = await executed(use)
    assert without < watched <= (1 + SHARE) * without, f"{without} without, {watched} with a collector"
    assert again < watched
