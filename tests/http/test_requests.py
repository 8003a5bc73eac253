"""One request and its sessions: reads and writes side by side, in every place that has a session, without a node."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Depends
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from lagwise import Policy
from lagwise.fastapi import (
    ReadSession,
    WriteSession,
)
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.http import (
    READ_ONLY,
    application,
    committed,
    cookie_of,
    cookies_set,
    insert,
    names,
    serving,
    with_items,
)
from tests.kit.routers import both_in_rotation, patient, router, stand_still, steady

# Read and write in one request


async def test_a_request_reads_its_own_write_once_it_is_committed(cluster: Cluster) -> None:
    """A read session opened beside an open write session does not see it; one opened after its COMMIT does."""
    db = patient(cluster)
    app = application(db)

    @app.post("/")
    async def create(session: WriteSession) -> list[int]:
        await insert(session, "mine")
        seen = []
        async with db.read() as reading:
            seen.append(await names(reading, "mine"))
        await session.commit()
        async with db.read() as reading:
            seen.append(await names(reading, "mine"))
        return seen

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert (await client.post("/")).json() == [0, 1]


async def test_read_and_write_dependencies_in_one_endpoint(cluster: Cluster) -> None:
    """Two sessions, each on its node: the one may not write, and does not see what the other has not committed."""
    db = steady(cluster)
    app = application(db, route_header=True)

    @app.post("/")
    async def create(writing: WriteSession, reading: ReadSession) -> list[Any]:
        await insert(writing, "apart")
        return [await names(writing, "apart"), await names(reading, "apart"), await reading.scalar(READ_ONLY)]

    async with serving(app) as client:
        await both_in_rotation(db)
        answer = await client.post("/")
        assert answer.json() == [1, 0, True]
        assert await committed(cluster, "apart") == 1


async def test_an_endpoint_may_commit_more_than_once(cluster: Cluster) -> None:
    """Every `await session.commit()` counts; the token covers the last, and the dependency's own adds nothing."""
    db = patient(cluster)
    app = application(db, route_header=True)
    with_items(app)

    @app.post("/thrice")
    async def create(session: WriteSession) -> None:
        for _ in range(3):
            await insert(session, "thrice")
            await session.commit()

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        written = await client.post("/thrice")
        assert (written.status_code, cookies_set(written).count("lagwise")) == (200, 1)
        assert (await client.get("/items/thrice")).json() == 3


# Further places for sessions


async def test_router_dependencies_share_the_session(cluster: Cluster) -> None:
    """A dependency of an APIRouter and its endpoint get one session between them, in one transaction."""
    db = steady(cluster)
    app = application(db)

    async def audited(session: WriteSession) -> None:
        session.info["audited"] = True
        await insert(session, "audit")

    routes = APIRouter(prefix="/audited", dependencies=[Depends(audited)])

    @routes.post("/{name}")
    async def create(name: str, session: WriteSession) -> list[Any]:
        await insert(session, name)
        return [session.info["audited"], await names(session, "audit")]

    app.include_router(routes)
    async with serving(app) as client:
        assert (await client.post("/audited/one")).json() == [True, 1]
        assert await committed(cluster, "audit") == 1


async def test_background_tasks_read_what_the_request_wrote(cluster: Cluster) -> None:
    """After the response a task opens sessions of its own, inside the request's causality."""
    db = patient(cluster)
    app = application(db)
    seen = []

    async def afterwards(name: str) -> None:
        async with db.read() as session:
            seen.append(await names(session, name))

    @app.post("/{name}")
    async def create(name: str, session: WriteSession, tasks: BackgroundTasks) -> None:
        await insert(session, name)
        tasks.add_task(afterwards, name)

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        await client.post("/in-the-background")
    assert seen == [1]


async def test_a_streaming_response_reads_what_the_request_wrote(cluster: Cluster) -> None:
    """The body is produced after the request's session has ended, in sessions of its own."""
    db = patient(cluster)
    app = application(db)

    @app.post("/{name}")
    async def create(name: str, session: WriteSession) -> StreamingResponse:
        await insert(session, name)

        async def lines() -> AsyncIterator[str]:
            async with db.read(snapshot=True) as reading:
                for item in await reading.scalars(select(Item).where(Item.name == name)):
                    yield f"{item.name}\n"

        return StreamingResponse(lines())

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        written = await client.post("/streamed-later")
        assert (written.text, cookie_of(written) is not None) == ("streamed-later\n", True)


# No node


async def test_no_primary_is_a_503_for_writes_alone(cluster: Cluster) -> None:
    """While there is no primary a write is told to come back, Retry-After and all; a read is served."""
    db = router(cluster, Policy(probe_interval=0.05))
    app = application(db)
    with_items(app)
    async with serving(app) as client:
        await both_in_rotation(db)
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        refused = await client.post("/items/nowhere")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"detail": "The database cannot serve this request right now."}
        assert "set-cookie" not in refused.headers
        assert (await client.get("/items/nowhere")).status_code == 200


async def test_no_replica_is_a_503_where_the_policy_keeps_reads_off_the_primary(cluster: Cluster) -> None:
    """`Policy(fall_back=False)`: when no replica is fresh enough the client is told to come back."""
    db = router(cluster, Policy(max_lag=60, sticky_window=60, catch_up=0, fall_back=False, probe_timeout=5))
    app = application(db)
    with_items(app)
    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        await client.post("/items/kept-off")
        refused = await client.get("/items/kept-off")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
