"""Clients of one principal that bring no token: what one has written, the others read."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header, WebSocket
from fastapi.responses import StreamingResponse

from lagwise import Causality, Policy, Router, RoutingError
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.store import MemoryStore, RedisStore
from lagwise.testing import Cluster, wait_until
from tests.kit.http import SECRET, ASGIApp, Socket, carries_nothing, http, insert, names, opened, reason_of
from tests.kit.principals import Device, aged, bearer, processes, shop
from tests.kit.redis_server import RedisServer, redis_server
from tests.kit.routers import both_in_rotation, patient, stand_still

# The full number is 500.
PAIRS = int(os.environ.get("LAGWISE_TEST_PAIRS", "40"))


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis of the test's own."""
    async with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def two_processes(cluster: Cluster, redis: RedisServer, **options: Any) -> AsyncIterator[list[ASGIApp]]:
    """Two processes on one Redis that has been there for long; every replica stands still."""
    routers = [patient(cluster), patient(cluster)]
    async with processes(routers, lambda: RedisStore(redis.url, **options)) as running:
        for db in routers:
            await both_in_rotation(db)
        for app in running:
            await Device(app, "anyone").get("/items/none")
        await redis.age()
        await stand_still(cluster)
        yield running


@asynccontextmanager
async def one_process(
    cluster: Cluster, application: Callable[[Router], FastAPI] = shop, **options: Any
) -> AsyncIterator[ASGIApp]:
    """One process with a store in memory; every replica stands still."""
    db, store = patient(cluster), aged(MemoryStore())
    async with processes([db], lambda: store, application, **options) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        yield running[0]


async def pairs(writing: ASGIApp, reading: ASGIApp, name: str) -> tuple[int, int]:
    """How many of many writes the principal's other client misses, and how many a stranger does."""
    stale = missed = 0
    for number in range(PAIRS):
        path = f"/items/{name} {number}"
        assert (await Device(writing, name).post(path)).status_code == 200
        stale += (await Device(reading, name).get(path)).json() != 1
        missed += (await Device(reading, "another").get(path)).json() != 1
    return stale, missed


async def test_two_clients_of_one_principal_through_two_processes(cluster: Cluster, redis: RedisServer) -> None:
    """Replay stands still, no client keeps a cookie: the principal's other client sees each write, a stranger none."""
    async with two_processes(cluster, redis, timeout=2.0, lease=8.0) as (one, other):
        assert await pairs(one, other, "bearer") == (0, PAIRS)


async def test_two_clients_of_one_principal_through_one_process(cluster: Cluster) -> None:
    """The same in memory, where there is one process."""
    async with one_process(cluster) as app:
        assert await pairs(app, app, "in memory") == (0, PAIRS)


async def test_redis_stops_and_starts_again(cluster: Cluster, redis: RedisServer) -> None:
    """Stopped under load, and started again with nothing in it: no write is missed, and no answer is a 5xx."""
    async with two_processes(cluster, redis) as apps:
        statuses, stale, done, over = set[int](), 0, 0, asyncio.Event()

        async def write_and_read(client: int) -> None:
            nonlocal stale, done
            while not over.is_set():
                path, user = f"/items/stopped {client} {done}", f"stopped {client} {done % 7}"
                written = await Device(apps[client % 2], user).post(path)
                read = await Device(apps[1 - client % 2], user).get(path)
                statuses.update((written.status_code, read.status_code))
                stale += read.json() != 1
                done += 1

        async def some(more: int) -> None:
            most = done + more
            await wait_until(lambda: done >= most, what="pairs")

        async with asyncio.TaskGroup() as group:
            for client in range(4):
                group.create_task(write_and_read(client))
            await some(8)
            await redis.stop()
            await some(8)
            await redis.start()
            await some(PAIRS)
            over.set()
    assert (statuses, stale) == ({200}, 0)


async def test_what_was_written_while_redis_was_stopped(cluster: Cluster, redis: RedisServer) -> None:
    """Another process, which asked nothing meanwhile, finds Redis empty, and does not take that for an answer."""
    async with two_processes(cluster, redis) as (one, other):
        assert (await Device(other, "stopped").get("/items/while stopped")).json() == 0
        await redis.stop()
        await Device(one, "stopped").post("/items/while stopped")
        await redis.start()
        assert (await Device(other, "stopped").get("/items/while stopped")).json() == 1
        # What could not be stored is stored: the same when Redis has been there for a window.
        await wait_until(lambda: redis.ask("KEYS", "*principal*"), what="it is stored")
        await redis.age()
        assert (await Device(other, "stopped").get("/items/while stopped")).json() == 1


async def test_redis_freezes_and_thaws(cluster: Cluster, redis: RedisServer) -> None:
    """A process that asked nothing meanwhile does not take an old answer for the newest one."""
    async with two_processes(cluster, redis) as (one, other):
        for number in range(3):
            path = f"/items/frozen {number}"
            assert (await Device(other, "frozen").get(path)).json() == 0
            redis.freeze()
            written = await Device(one, "frozen").post(path)
            redis.thaw()
            read = await Device(other, "frozen").get(path)
            assert (written.status_code, read.status_code, read.json()) == (200, 200, 1)


async def test_a_stopped_redis_means_the_primary(cluster: Cluster, redis: RedisServer) -> None:
    """For principals; whoever names none is served by replicas as before."""
    async with two_processes(cluster, redis, timeout=2.0, lease=8.0) as (one, _):
        before = await Device(one, "calm").get("/items/calm")
        await redis.stop()
        during = [await Device(one, user).get("/items/calm") for user in ("calm", None)]
        assert [reason_of(each) for each in (before, *during)] == ["fresh", "sticky", "fresh"]
        assert all(carries_nothing(each) for each in during)


async def test_a_token_and_a_principal_merge(cluster: Cluster) -> None:
    """What the client brings and what the store knows: a read sees both."""
    async with one_process(cluster) as app:
        token = (await Device(app, None).post("/items/brought")).headers["lagwise-token"]
        await Device(app, "merging").post("/items/stored")
        async with http(app) as client:
            headers = {"authorization": "merging", "lagwise-token": token}
            read = [(await client.get(f"/items/{name}", headers=headers)).json() for name in ("brought", "stored")]
        assert read == [1, 1]


async def test_what_a_failed_request_has_committed_is_kept(cluster: Cluster) -> None:
    """An endpoint that raises after its commit, with Starlette's own 500 on the way: the principal sees the write."""

    def application(db: Router) -> FastAPI:
        app = FastAPI(lifespan=lifespan(db))
        with_items_and(app)
        app.add_middleware(CausalityMiddleware, secret=SECRET, store=store, key=bearer)
        return app

    def with_items_and(app: FastAPI) -> None:
        @app.post("/raises/{name}")
        async def raises(name: str, session: WriteSession) -> None:
            await insert(session, name)
            await session.commit()
            raise RuntimeError

        @app.get("/items/{name}")
        async def count(name: str, session: ReadSession) -> int:
            return await names(session, name)

    db, store = patient(cluster), aged(MemoryStore())
    async with opened(application(db)) as app:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert (await Device(app, "failing").post("/raises/half done")).status_code == 500
        assert (await Device(app, "failing").get("/items/half done")).json() == 1


# Identified later


def authenticated(db: Router) -> FastAPI:
    """An application that knows its principal only in a dependency."""
    app = FastAPI(lifespan=lifespan(db))

    async def user(authorization: Annotated[str, Header()]) -> str:
        seen = Causality.current()
        assert seen is not None
        await seen.identify(authorization)
        return authorization

    User = Annotated[str, Depends(user)]

    @app.post("/items/{name}")
    async def create(name: str, user: User, session: WriteSession) -> None:
        await insert(session, name)

    @app.get("/items/{name}")
    async def count(name: str, user: User, session: ReadSession) -> int:
        return await names(session, name)

    @app.get("/late/{name}")
    async def late(name: str, session: ReadSession, authorization: Annotated[str, Header()]) -> list[int]:
        before = await names(session, name)
        await user(authorization)
        return [before, await names(session, name)]

    @app.post("/both/{name}")
    async def both(name: str, session: WriteSession) -> None:
        await insert(session, name)
        await user("first of two")
        with Causality():  # a job inside of the request
            await user("second of two")

    @app.post("/stream/{name}")
    async def stream(name: str, user: User, tasks: BackgroundTasks) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            yield "begun "
            async with db.write.begin() as session:
                await insert(session, name)
            yield "written"

        async def later() -> None:
            async with db.write.begin() as session:
                await insert(session, f"{name} later")

        tasks.add_task(later)
        return StreamingResponse(rows(), background=tasks)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        seen = Causality.current()
        assert seen is not None
        async for words in socket.iter_text():
            await seen.identify("by socket")
            kind, _, name = words.partition(" ")
            if kind == "write":
                async with db.write.begin() as session:
                    await insert(session, name)
            async with db.read() as session:
                await socket.send_text(str(await names(session, name)))

    return app


async def test_a_principal_that_authentication_tells(cluster: Cluster) -> None:
    """`identify` in a dependency: the other client sees the write, a stranger does not."""
    async with one_process(cluster, authenticated, key=None) as app:
        await Device(app, "told").post("/items/told by authentication")
        assert (await Device(app, "told").get("/items/told by authentication")).json() == 1
        assert (await Device(app, "another").get("/items/told by authentication")).json() == 0


async def test_a_session_that_is_open_moves_when_the_principal_is_known(cluster: Cluster) -> None:
    """Authentication that reads from the database itself: what is read after `identify` has the principal's writes."""
    async with one_process(cluster, authenticated, key=None) as app:
        await Device(app, "late").post("/items/late")
        assert (await Device(app, "late").get("/late/late")).json() == [0, 1]


async def test_two_principals_of_one_request(cluster: Cluster) -> None:
    """A user and an organisation: clients of both see the write, whichever was named after it."""
    async with one_process(cluster, authenticated, key=None) as app:
        await Device(app, None).post("/both/shared")
        for user in ("first of two", "second of two"):
            assert (await Device(app, user).get("/items/shared")).json() == 1


async def test_what_is_written_after_the_start_of_an_answer_is_stored_before_the_client_hears(cluster: Cluster) -> None:
    """A stream that writes while it is sent, a background task: no header could carry their tokens."""
    async with one_process(cluster, authenticated, key=None) as app:
        answer = await Device(app, "streaming").post("/stream/in a stream")
        assert (answer.text, "lagwise-token" in answer.headers) == ("begun written", False)
        for name in ("in a stream", "in a stream later"):
            assert (await Device(app, "streaming").get(f"/items/{name}")).json() == 1


async def test_a_websocket_and_http_clients_of_one_principal(cluster: Cluster) -> None:
    """Each sees what the other wrote, though a socket has no headers after its start."""
    async with one_process(cluster, authenticated, key=None) as app, Socket(app, "/ws") as socket:
        await socket.heard()
        assert await socket.says("write by the socket") == "1"
        assert (await Device(app, "by socket").get("/items/by the socket")).json() == 1
        await Device(app, "by socket").post("/items/over http")
        assert await socket.says("read over http") == "1"


@pytest.mark.parametrize("key", ["", None, 42])
async def test_a_key_that_is_no_key_is_refused(cluster: Cluster, key: Any) -> None:
    """An empty key would be everyone's; a number may be a mistake that two tables share."""
    refused = list[Exception]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await Causality.current().identify(key)  # type: ignore[union-attr]
        except Exception as error:
            refused.append(error)

    await CausalityMiddleware(app, secret=SECRET, store=MemoryStore())(_scope(), _never, _never)
    assert [type(error) for error in refused] == [ValueError if key == "" else TypeError]


async def test_identify_without_a_store_says_what_is_missing() -> None:
    """In a job, and in a request whose middleware has no store."""
    with Causality() as seen, pytest.raises(RoutingError, match="store="):
        await seen.identify("user:42")


async def test_one_request_acts_for_a_bounded_number_of_principals() -> None:
    """Sixteen; the next is refused by name, and those named before may be named again."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = Causality.current()
        assert seen is not None
        for number in (*range(16), 0):
            await seen.identify(f"user:{number}")
        with pytest.raises(RoutingError, match="16"):
            await seen.identify("user:16")

    await CausalityMiddleware(app, secret=SECRET, store=MemoryStore())(_scope(), _never, _never)


async def test_a_gateway_knows_a_window_without_a_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands tokens on and reads from no database: a store that was emptied just now is relied on a window later."""
    monkeypatch.setattr("lagwise._client.known.windows", [])
    doubts = list[bool]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = Causality.current()
        assert seen is not None
        doubts.append(seen.token.position(0) is not None)

    store = aged(MemoryStore())
    gateway = CausalityMiddleware(app, secret=SECRET, store=store, key=lambda _: "user:42")
    for age in (2.0, Policy().sticky_window - 0.1, Policy().sticky_window + 60):
        store._since = time.monotonic() - age
        await gateway(_scope(), _never, _never)
    assert doubts == [True, True, False]


def test_a_key_needs_a_store() -> None:
    """Without one nothing would be remembered: refused when the middleware is made."""
    with pytest.raises(ValueError, match="store"):
        CausalityMiddleware(_never, secret=SECRET, key=bearer)


@pytest.mark.parametrize("named", [None, ""])
async def test_a_request_without_a_principal_goes_on(cluster: Cluster, named: str | None) -> None:
    """`key` answers None, or nothing: a client like any other."""
    async with one_process(cluster, key=lambda _: named) as app:
        await Device(app, "x").post(f"/items/unnamed {named}")
        assert (await Device(app, "x").get(f"/items/unnamed {named}")).json() == 0


async def test_the_store_is_closed_when_the_application_shuts_down(redis: RedisServer) -> None:
    """The process ends its lease, so that no other one waits for it."""
    store, sent = RedisStore(redis.url), list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        sent.append(f"{message['type']} {await redis.ask('ZCARD', '{lagwise}:processes')}")

    served = CausalityMiddleware(app, secret=SECRET, store=store, key=lambda _: "someone")
    await served(_scope(), _never, _never)
    await served({"type": "lifespan"}, _never, send)
    assert sent == ["lifespan.startup.complete 1", "lifespan.shutdown.complete 0"]


def _scope() -> dict[str, Any]:
    return {"type": "http", "headers": []}


async def _never(*_: Any) -> Any:
    raise AssertionError("not called")
