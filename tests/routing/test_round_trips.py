"""What a routed session costs, counted where it cannot lie: on the wire."""

from sqlalchemy import select

from lagwise import Causality
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.routers import MANY, quiet, trips


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


async def test_a_routed_write_with_its_token_is_three_round_trips(cluster: Cluster) -> None:
    """BEGIN, INSERT, COMMIT: the position comes in COMMIT's own message, from a session and from asyncpg()."""
    async with quiet(cluster) as db:

        async def write() -> None:
            async with db.write.begin() as session:
                session.add(Item(name="written"))

        async def by_driver() -> None:
            async with db.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ($1)", "written")

        for one, most in ((write, 3), (by_driver, 4)):  # asyncpg prepares and executes what has arguments
            for _ in range(MANY):  # warm: connections are open, statements prepared
                with Causality():
                    await one()
            before = trips(cluster)
            for _ in range(MANY):
                with Causality() as seen:
                    await one()
                assert [position.lsn > 0 for position in seen.token] == [True]
            with_token = trips(cluster) - before
            before = trips(cluster)
            for _ in range(MANY):
                await one()
            assert trips(cluster) - before == with_token <= most * MANY


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
