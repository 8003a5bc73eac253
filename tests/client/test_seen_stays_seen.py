"""What a client has seen stays seen: cookies that cannot regress, and the guarantee "session"."""

import asyncio

import httpx
from fastapi import FastAPI
from sqlalchemy import text

from lagwise import Causality, Policy, Router
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
