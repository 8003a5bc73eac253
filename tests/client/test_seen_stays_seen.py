"""What a client has seen stays seen: cookies that cannot regress, and the guarantee "session"."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from lagwise import Causality, Policy, Router
from lagwise._nodes.monitor import Monitor
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster, wait_until
from tests.kit.application import SECRET, routed
from tests.kit.routers import in_rotation, router
from tests.kit.serving import client, served
from tests.kit.sessions import write

SESSION = Policy(guarantee="session", probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120, catch_up=0.02)


async def test_answers_in_the_wrong_order_lose_no_write(cluster: Cluster) -> None:
    """Two writes in flight, the older answer arrives last: the newer write is read all the same."""
    async with served(routed(router(cluster))) as url, client(url) as http:
        older = await http.post("/items/older")
        http.cookies.clear()
        await cluster.caught_up()
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        newer = await http.post("/items/newer")
        shown = f"/items/{newer.json()['id']}"

        in_order = httpx.Cookies()
        for answer in (newer, older):
            in_order.extract_cookies(answer)
        regressed = {"lagwise": in_order["lagwise"]}
        assert regressed["lagwise"] == older.cookies["lagwise"]

        http.cookies = in_order
        assert (await http.get(shown)).status_code == 200
        http.cookies = httpx.Cookies(regressed)  # what one cookie alone would have left
        assert (await http.get(shown)).status_code == 404


async def test_slots_are_tidied_away(cluster: Cluster) -> None:
    """A client that writes on and on holds two cookies, whatever it wrote at once before."""
    async with served(routed(router(cluster))) as url, client(url) as http:
        answers = await asyncio.gather(*(http.post(f"/items/{turn}") for turn in range(8)))
        tokens = {answer.headers["lagwise-token"] for answer in answers}
        assert len(http.cookies) == 1 + len(tokens)
        for turn in range(3):
            await http.post(f"/items/{turn}")
            assert len(http.cookies) == 2


async def count(db: Router) -> int:
    async with db.read() as session:
        return int(await session.scalar(text("SELECT count(*) FROM item")) or 0)


async def test_monotonic_reads(cluster: Cluster) -> None:
    """Read from the replica that is ahead, a client never reads from the one behind; by default it may."""
    for policy, monotonic in (
        (SESSION, True),
        (Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120), False),
    ):
        async with router(cluster, policy) as db:
            await in_rotation(db, "replica-1", "replica-2")
            await cluster.pause_replay("replica-2")
            before = await count(db)
            await write(db, "seen on one replica")
            db.drain("replica-2")
            await ahead(cluster)
            with Causality() as seen:
                assert await count(db) == before + 1
                db.undrain("replica-2")
                db.drain("replica-1")
                assert await count(db) == before + 1 if monotonic else before
                assert seen.grew is monotonic
            await cluster.resume_replay("replica-2")
            db.undrain("replica-1")
            await cluster.caught_up()


READ = text("SELECT count(*) FROM item")


async def _not_committed(db: Router) -> int:
    async with db.write() as session:
        return int(await session.scalar(READ) or 0)


async def _rolled_back(db: Router) -> int:
    async with db.write() as session:
        found = int(await session.scalar(READ) or 0)
        await session.rollback()
        assert await count(db) == found  # also before it is closed
    return found


async def _in_a_block_that_raises(db: Router) -> int:
    with suppress(KeyError):
        async with db.write.begin() as session:
            found = int(await session.scalar(READ) or 0)
            raise KeyError
    return found


async def _after_a_commit(db: Router) -> int:
    async with db.write() as session:
        await session.execute(text("SELECT 1"))
        await session.commit()
        return int(await session.scalar(READ) or 0)


async def _by_the_driver(db: Router) -> int:
    with suppress(KeyError):
        async with db.write.asyncpg() as driver:
            found = int(await driver.fetchval("SELECT count(*) FROM item"))
            raise KeyError
    return found


async def _refused(db: Router) -> int:
    with suppress(IntegrityError):
        async with db.write.begin() as session:
            found = int(await session.scalar(READ) or 0)
            await session.execute(text("CREATE TEMP TABLE twice (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
            await session.execute(text("INSERT INTO twice VALUES (1), (1)"))
    return found


@pytest.mark.parametrize(
    "read", [_not_committed, _rolled_back, _in_a_block_that_raises, _after_a_commit, _by_the_driver, _refused]
)
async def test_what_a_write_session_showed_stays_seen(
    cluster: Cluster, read: Callable[[Router], Awaitable[int]]
) -> None:
    """Also when it commits nothing: a later read goes to no replica that lacks what another client had written."""
    async with router(cluster, SESSION) as db:
        await in_rotation(db, "replica-1", "replica-2")
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        before = await count(db)
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('of another client')")
        with Causality(None) as seen:
            assert await read(db) == before + 1
            assert seen.grew
            assert await count(db) == before + 1
            assert not any(position.in_doubt_at for position in seen.token)


async def test_where_it_cannot_be_asked_it_is_in_doubt(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question gets no answer, or the session is closed where nothing can be asked: the client is in doubt."""

    async def never(*_: object) -> None:
        return None

    async with router(cluster, SESSION) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality(None) as seen, monkeypatch.context() as patch:
            patch.setattr(Monitor, "after", never)
            await _not_committed(db)
            assert any(position.in_doubt_at for position in seen.token)
        with Causality(None) as seen:
            session = db.write()
            await session.scalar(READ)
            connection = await session.connection()
            session.sync_session.lease.end()  # type: ignore[attr-defined]
            assert any(position.in_doubt_at for position in seen.token)
            await connection.close()
            await session.close()


async def test_the_price_is_one_question(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a write session that commits nothing, under this guarantee; no other write session asks the monitor."""
    asked: list[str] = []
    plain = Monitor.after

    async def counting(monitor: Monitor, node: str, *times: float) -> Any:
        asked.append(node)
        return await plain(monitor, node, *times)

    monkeypatch.setattr(Monitor, "after", counting)
    for policy, questions in ((SESSION, ["primary"]), (Policy(), [])):
        async with router(cluster, policy) as db:
            await in_rotation(db, "replica-1", "replica-2")
            with Causality(None):
                await write(db, "committed")
                async with db.write(sticky=False) as session:
                    await session.scalar(READ)
                assert asked == []
                async with db.write() as session:
                    await session.scalar(READ)
                    await session.rollback()
            async with db.write() as session:  # of no client
                await session.scalar(READ)
            assert asked == questions
        asked.clear()


async def ahead(cluster: Cluster) -> None:
    """Wait until replica-1 has replayed everything, the paused one notwithstanding."""
    target = await cluster.primary.fetchval("SELECT pg_current_wal_flush_lsn()")

    async def replayed() -> bool:
        return bool(await cluster["replica-1"].fetchval("SELECT pg_last_wal_replay_lsn()") >= target)

    await wait_until(replayed, what="replica-1")


async def test_a_reading_client_carries_its_position_over_http(cluster: Cluster) -> None:
    """Under guarantee="session" a GET answers with a token; a second GET that sees nothing newer does not regress."""
    app = FastAPI(lifespan=lifespan(db := router(cluster, SESSION)))
    app.add_middleware(CausalityMiddleware, secret=SECRET)

    @app.get("/")
    async def read(session: ReadSession) -> int:
        return int(await session.scalar(text("SELECT count(*) FROM item")) or 0)

    @app.post("/")
    async def add(session: WriteSession) -> None:
        await session.execute(text("INSERT INTO item (name) VALUES ('carried')"))

    async with served(app) as url, client(url) as http:
        assert "lagwise-token" in (await http.get("/")).headers
        counts = []
        for _ in range(10):
            await http.post("/")
            counts.append((await http.get("/")).json())
        assert counts == sorted(counts)
        assert db.policy.guarantee == "session"
