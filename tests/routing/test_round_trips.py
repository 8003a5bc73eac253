"""What a routed session costs, counted where it cannot lie: on the wire."""

from sqlalchemy import select

from lagwise import Causality, Policy, Router
from lagwise.testing import Cluster

from .application import Item
from .conftest import router

MANY = 20


def trips(cluster: Cluster) -> int:
    """The round trips of all nodes so far, whoever made them."""
    return sum(node.proxy.round_trips for node in cluster.nodes.values())


def quiet(cluster: Cluster) -> Router:
    """A Router that probes when it opens and then only when it must."""
    return router(cluster, Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120), pool_size=2)


async def test_a_routed_read_is_one_round_trip(cluster: Cluster) -> None:
    """One SELECT in one session: 1 trip, no BEGIN, no ROLLBACK, no ping."""
    async with quiet(cluster) as db:
        async with db.write.begin() as session:
            session.add(item := Item(name="read me"))
        await cluster.caught_up()
        for _ in range(4 * MANY):  # warm: connections are open, statements prepared
            async with db.read() as session:
                await session.get(Item, item.id)
        before = trips(cluster)
        for _ in range(MANY):
            async with db.read() as session:
                assert await session.get(Item, item.id) is not None
        assert trips(cluster) - before == MANY


async def test_a_read_that_waits_for_nothing_stays_one_round_trip_with_a_token(cluster: Cluster) -> None:
    """A floor that memory knows to be reached costs nothing."""
    async with quiet(cluster) as db:
        with Causality() as seen:
            async with db.write.begin() as session:
                session.add(item := Item(name="read me"))
            await cluster.caught_up()
            for _ in range(4 * MANY):
                async with db.read() as session:
                    await session.get(Item, item.id)
            before = trips(cluster)
            for _ in range(MANY):
                async with db.read() as session:
                    assert await session.get(Item, item.id) is not None
                    assert session.info["lagwise.route"].reason == "caught-up"
            assert trips(cluster) - before == MANY
        assert seen.grew


async def test_a_routed_write_with_its_token_is_four_round_trips(cluster: Cluster) -> None:
    """BEGIN, INSERT, COMMIT, position: at most 4; without anyone to carry a token, 3."""
    async with quiet(cluster) as db:

        async def write() -> None:
            async with db.write.begin() as session:
                session.add(Item(name="written"))

        with Causality():
            await write()
            before = trips(cluster)
            for _ in range(MANY):
                await write()
            assert trips(cluster) - before == 4 * MANY
        before = trips(cluster)
        for _ in range(MANY):
            await write()
        assert trips(cluster) - before == 3 * MANY


async def test_a_select_by_core_is_one_round_trip_too(cluster: Cluster) -> None:
    """Plain text and Core selects leave nothing behind, so nothing is reset."""
    async with quiet(cluster) as db:
        for _ in range(4 * MANY):
            async with db.read() as session:
                await session.execute(select(Item.name).limit(1))
        before = trips(cluster)
        for _ in range(MANY):
            async with db.read() as session:
                await session.execute(select(Item.name).limit(1))
        assert trips(cluster) - before == MANY
