"""A read session that is open while its own client writes: it sees the write, or says why it cannot."""

import asyncio
from contextvars import Context
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality, NoReplica, Policy, Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan, reads
from lagwise.testing import Cluster
from tests.kit.application import SECRET, Item
from tests.kit.routers import PATIENT, both_in_rotation, let_go, router, stand_still
from tests.kit.serving import client, served
from tests.kit.sessions import count, on_replica, write


@pytest.fixture
def db(still: Router) -> Router:
    """The replicas show what there was, and nothing that comes."""
    return still


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("maker", ["plain", "begin"])
async def test_it_sees_what_its_client_writes_meanwhile(db: Router, used: bool, maker: str) -> None:
    """Opened on a replica, before the write; its next statement goes where the write is, used before or not."""
    name = f"overtaken {used} {maker}"
    with Causality():
        async with db.read() if maker == "plain" else db.read.begin() as session:
            if used:
                assert await count(session, name) == 0
                assert await on_replica(session)
            assert session.info["lagwise.route"].on_replica
            await write(db, name)
            assert await count(session, name) == 1
            assert not await on_replica(session)
            assert session.info["lagwise.route"].node == "primary"


async def test_it_is_read_only_where_it_goes(db: Router) -> None:
    """Still a read session, on the primary too."""
    with Causality():
        async with db.read() as session:
            await on_replica(session)
            await write(db, "overtaken, read-only")
            assert await session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on"


async def test_it_stays_where_the_write_is_already(cluster: Cluster, db: Router) -> None:
    """A replica that has replayed the write goes on serving, and every later write is looked at anew."""
    with Causality():
        async with db.read() as session:
            await on_replica(session)
            before = session.info["lagwise.route"]
            await write(db, "overtaken, replayed")
            await let_go(cluster, db)
            assert await count(session, "overtaken, replayed") == 1
            assert await on_replica(session)
            assert session.info["lagwise.route"] is before
            await stand_still(cluster)
            await write(db, "overtaken, not replayed")
            assert await count(session, "overtaken, not replayed") == 1
            assert not await on_replica(session)


async def test_another_clients_write_moves_nobody(db: Router) -> None:
    """Read-your-writes: a session outside, or of another client, stays on its replica."""
    async with db.read() as stranger:
        await on_replica(stranger)
        with Causality():
            async with db.read() as another:
                await on_replica(another)
                strange = asyncio.create_task(write(db, "overtaken, another's"), context=Context())
                await strange  # outside of every causality
                assert await count(another, "overtaken, another's") == 0
        assert await count(stranger, "overtaken, another's") == 0


async def test_a_write_that_was_refused_or_rolled_back_moves_nobody(db: Router) -> None:
    """No write, no floor."""
    with Causality():
        async with db.read() as session:
            await on_replica(session)
            async with db.write() as writing:
                writing.add(Item(name="rolled back"))
                await writing.flush()
                await writing.rollback()
            assert await on_replica(session)


async def test_a_commit_under_way_counts_as_one(db: Router) -> None:
    """From the moment COMMIT is sent until its place is known the session reads from the primary."""
    with Causality() as seen:
        async with db.read() as session:
            await on_replica(session)
            commit = seen.begin(db.view.system, 60)
            commit.announce()
            assert not await on_replica(session)
            commit.refused()


async def test_in_the_applications_own_block_it_says_that_it_cannot(db: Router) -> None:
    """Another node in the middle of `session.begin()` would break the block: NoReplica, and what to do."""
    with Causality():
        async with db.read() as session:
            async with session.begin():
                assert await count(session, "overtaken, in a block") == 0
                await write(db, "overtaken, in a block")
                with pytest.raises(NoReplica, match=r"db\.read\(primary=True\)"):
                    await count(session, "overtaken, in a block")
            # The block is over: the session goes on, elsewhere.
            assert await count(session, "overtaken, in a block") == 1


async def test_in_a_block_on_a_replica_that_has_it_nothing_happens(cluster: Cluster, db: Router) -> None:
    """The block is not broken without need."""
    with Causality():
        async with db.read() as session, session.begin():
            await on_replica(session)
            await write(db, "overtaken, block, replayed")
            await let_go(cluster, db)
            assert await count(session, "overtaken, block, replayed") == 1
            assert await on_replica(session)


async def test_a_snapshot_stays_as_of_when_it_was_taken(cluster: Cluster, db: Router) -> None:
    """That is what it was asked for, on a replica that lacks the write and on one that has it."""
    with Causality():
        async with db.read(snapshot=True) as session:
            assert await count(session, "overtaken, snapshot") == 0
            await write(db, "overtaken, snapshot")
            assert await count(session, "overtaken, snapshot") == 0
            await let_go(cluster, db)
            assert await count(session, "overtaken, snapshot") == 0
            assert await on_replica(session)
        async with db.read(snapshot=True) as session:
            assert await count(session, "overtaken, snapshot") == 1


async def test_without_falling_back_it_is_an_error_and_no_miss(cluster: Cluster) -> None:
    """fall_back=False: NoReplica while no replica has the write, and the session goes on when one does."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, fall_back=False)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        with Causality():
            async with db.read() as session:
                await on_replica(session)
                await write(db, "overtaken, kept off")
                for _ in range(2):
                    with pytest.raises(NoReplica):
                        await count(session, "overtaken, kept off")
                await let_go(cluster, db)
                assert await count(session, "overtaken, kept off") == 1


async def test_its_place_on_the_primary_counts_and_is_given_back(cluster: Cluster) -> None:
    """A session that moves there is one of those that `fall_back_limit` bounds, until it is closed."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, fall_back_limit=1)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        with Causality():
            async with db.read() as one, db.read() as two:
                await on_replica(one)
                await write(db, "overtaken, limited")
                assert await count(one, "overtaken, limited") == 1
                with pytest.raises(NoReplica, match="fall_back_limit"):
                    await count(two, "overtaken, limited")
                await one.close()
                assert await count(two, "overtaken, limited") == 1


async def test_what_a_moved_session_has_read_is_remembered(cluster: Cluster) -> None:
    """guarantee="session": the next session is not behind what this one has read where it went."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, guarantee="session")
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        with Causality() as mine:
            async with db.read() as session:
                await on_replica(session)
                await write(db, "overtaken, mine")
                with Causality():
                    await write(db, "overtaken, theirs")
                assert await count(session, "overtaken, theirs") == 1
            written = mine.token
        with Causality(str(written)):
            async with db.read() as session:
                assert await count(session, "overtaken, theirs") == 1


def application(db: Router) -> FastAPI:
    """Both dependencies in one endpoint, which commits by itself and then reads."""
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=SECRET, route_header=True)
    bounded = Annotated[AsyncSession, reads(max_staleness=30.0)]

    async def answer(name: str, reading: AsyncSession, writing: AsyncSession, used: bool) -> dict[str, Any]:
        before = await count(reading, name) if used else 0
        writing.add(Item(name=name))
        await writing.commit()
        return {"before": before, "after": await count(reading, name), "replica": await on_replica(reading)}

    @app.post("/plain/{name}")
    async def plain(name: str, reading: ReadSession, writing: WriteSession, used: bool) -> dict[str, Any]:
        return await answer(name, reading, writing, used)

    @app.post("/reversed/{name}")
    async def other_way(name: str, writing: WriteSession, reading: ReadSession, used: bool) -> dict[str, Any]:
        return await answer(name, reading, writing, used)

    @app.post("/bounded/{name}")
    async def with_options(name: str, reading: bounded, writing: WriteSession, used: bool) -> dict[str, Any]:
        return await answer(name, reading, writing, used)

    return app


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("path", ["plain", "reversed", "bounded"])
async def test_both_sessions_in_one_endpoint(cluster: Cluster, path: str, used: bool) -> None:
    """The read session was opened before the endpoint began: it sees what the endpoint has committed."""
    db = router(cluster, PATIENT)
    async with served(application(db)) as url, client(url) as http:
        await both_in_rotation(db)
        await stand_still(cluster)
        response: httpx.Response = await http.post(f"/{path}/endpoint {path} {used}", params={"used": used})
        assert response.json() == {"before": 0, "after": 1, "replica": False}
        # Where it was opened, and where it went.
        assert "reason=fresh" in response.headers["lagwise-route"]
        assert "primary; reason=none-caught-up" in response.headers["lagwise-route"]
