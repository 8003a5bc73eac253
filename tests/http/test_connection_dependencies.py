"""FastAPI without sessions: `ReadConnection`, `ReadAsyncpg` and `WriteAsyncpg` are under the promises of sessions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from lagwise import Policy, Router
from lagwise.fastapi import (
    ReadAsyncpg,
    ReadConnection,
    WriteAsyncpg,
    WriteSession,
    read_asyncpg,
    read_connection,
    write_asyncpg,
)
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.http import (
    ASGIApp,
    Asking,
    Socket,
    application,
    carries_nothing,
    committed,
    cookie_of,
    cookies_set,
    insert,
    opened,
    reason_of,
    serving,
)
from tests.kit.routers import both_in_rotation, busy, patient, router, stand_still, steady

each_way = pytest.mark.parametrize("way", ["core", "asyncpg"])
NAMED = "SELECT count(*) FROM item WHERE name = $1"


async def counted(connection: AsyncConnection, name: str) -> int:
    """How many items of this name Core sees."""
    return len((await connection.scalars(select(Item.id).where(Item.name == name))).all())


def items(db: Router, **options: Any) -> FastAPI:
    """An application that writes by the driver, and reads by it and by Core."""
    app = application(db, **options)

    @app.post("/items/{name}")
    async def create(name: str, connection: WriteAsyncpg) -> int:
        return int(await connection.fetchval("INSERT INTO item (name) VALUES ($1) RETURNING id", name))

    @app.post("/missing/{name}")
    async def fail(name: str, connection: WriteAsyncpg) -> None:
        await connection.execute("INSERT INTO item (name) VALUES ($1)", name)
        raise HTTPException(404)

    @app.post("/both/{name}")
    async def both(name: str, core: ReadConnection, driver: ReadAsyncpg, session: WriteSession) -> list[int]:
        before = [await counted(core, name), await driver.fetchval(NAMED, name)]
        await insert(session, name)
        await session.commit()
        return [*before, await counted(core, name), await driver.fetchval(NAMED, name)]

    @app.get("/core/{name}")
    async def by_core(name: str, connection: ReadConnection) -> int:
        return await counted(connection, name)

    @app.get("/asyncpg/{name}")
    async def by_driver(name: str, connection: ReadAsyncpg) -> int:
        return int(await connection.fetchval(NAMED, name))

    @app.get("/forbidden/core")
    async def writes_by_core(connection: ReadConnection) -> None:
        await connection.execute(text("INSERT INTO item (name) VALUES ('forbidden')"))

    @app.get("/forbidden/asyncpg")
    async def writes_by_driver(connection: ReadAsyncpg) -> None:
        await connection.execute("INSERT INTO item (name) VALUES ('forbidden')")

    return app


@each_way
async def test_a_get_after_a_post(cluster: Cluster, way: str) -> None:
    """Replay stands still: who wrote reads it, on the primary; another client misses it, on a replica."""
    db = patient(cluster)
    async with serving(items(db, route_header=True)) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        written = await client.post(f"/items/own by {way}")
        assert (written.status_code, reason_of(written)) == (200, "write")
        assert cookie_of(written) is not None
        shown = await client.get(f"/{way}/own by {way}")
        assert (shown.json(), reason_of(shown), cookies_set(shown)) == (1, "none-caught-up", [])
        client.cookies.clear()
        missed = await client.get(f"/{way}/own by {way}")
        assert (missed.json(), reason_of(missed)) == (0, "fresh")
    assert busy(db) == 0


async def test_reads_open_in_the_endpoint_that_writes(cluster: Cluster) -> None:
    """Both kinds were opened before the endpoint began: they see what it has committed meanwhile."""
    db = patient(cluster)
    async with serving(items(db)) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert (await client.post("/both/meanwhile")).json() == [0, 0, 1, 1]


async def test_commit_precedes_the_response(cluster: Cluster) -> None:
    """When the status line leaves, everybody sees the row."""
    db, watched = steady(cluster), []

    def watch(app: ASGIApp) -> ASGIApp:
        watched.append(Asking(app, cluster, "by the driver"))
        return watched[-1]

    async with serving(items(db), watch) as client:
        await client.post("/items/by the driver")
    assert [each.seen for each in watched if each.seen] == [[(200, 1)]]


async def test_what_is_not_committed_carries_no_token(cluster: Cluster, refusing: str) -> None:
    """A refused COMMIT is a 500, an endpoint's own error what it says: both without a token, and without the row."""
    db = steady(cluster)
    async with serving(items(db)) as client:
        failed = await client.post(f"/items/{refusing}")
        assert (failed.status_code, carries_nothing(failed)) == (500, True)
        missing = await client.post("/missing/not this")
        assert (missing.status_code, carries_nothing(missing)) == (404, True)
    assert await committed(cluster, refusing) + await committed(cluster, "not this") == 0


@each_way
async def test_a_get_that_writes_is_a_500(cluster: Cluster, way: str) -> None:
    """As with a ReadSession: refused by the database, and nothing was written."""
    db = steady(cluster)
    async with serving(items(db)) as client:
        assert (await client.get(f"/forbidden/{way}")).status_code == 500
    assert await committed(cluster, "forbidden") == 0


@each_way
async def test_no_node_is_a_503(cluster: Cluster, way: str) -> None:
    """No primary for a write, no replica for a read that is kept off the primary: Retry-After, and no token."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, fall_back=False, probe_interval=0.05)
    db = router(cluster, policy)
    async with serving(items(db)) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        await client.post("/items/kept off")
        refused = await client.get(f"/{way}/kept off")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        refused = await client.post("/items/nowhere")
        assert (refused.status_code, refused.headers["retry-after"], cookies_set(refused)) == (503, "1", [])


async def test_a_read_that_cannot_move_is_a_503(cluster: Cluster) -> None:
    """`NoReplica` out of the endpoint itself: it held a transaction when its client wrote."""
    db = patient(cluster)
    app = application(db)

    @app.post("/held")
    async def held(core: ReadConnection, driver: ReadAsyncpg, session: WriteSession, by: str) -> int:
        async with core.begin(), driver.transaction():
            await insert(session, "held")
            await session.commit()
            return await counted(core, "held") if by == "core" else await driver.fetchval(NAMED, "held")

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        for by in ("core", "asyncpg"):
            client.cookies.clear()  # or it is opened where the client's last write is
            answer = await client.post("/held", params={"by": by})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_websocket_has_them_too(cluster: Cluster) -> None:
    """One of each per message, in one causality."""
    db = patient(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, reading: ReadAsyncpg) -> None:
        await socket.accept()
        async for name in socket.iter_text():
            async with db.write.asyncpg() as connection:
                await connection.execute("INSERT INTO item (name) VALUES ($1)", name)
            async with db.read.connect() as core:
                await socket.send_text(f"{await counted(core, name)} {await reading.fetchval(NAMED, name)}")

    async with opened(app) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with Socket(running, "/ws") as socket:
            await socket.heard()
            assert [await socket.says("lent"), await socket.says("lent")] == ["1 1", "2 2"]


async def test_they_can_be_replaced(cluster: Cluster) -> None:
    """Each has its key for `dependency_overrides`: a test needs no database."""
    app = items(router(cluster))

    class Five:
        async def fetchval(self, *_: object) -> int:
            return 5

        async def scalars(self, _: object) -> "Five":
            return self

        def all(self) -> str:
            return "12345"

    async def five() -> AsyncIterator[Five]:
        yield Five()

    app.dependency_overrides = dict.fromkeys((read_connection, read_asyncpg, write_asyncpg), five)
    async with serving(app) as client:
        answers = [await client.get("/core/x"), await client.get("/asyncpg/x"), await client.post("/items/x")]
        assert [answer.json() for answer in answers] == [5, 5, 5]
