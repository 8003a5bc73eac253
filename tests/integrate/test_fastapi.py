"""FastAPI in all the shapes applications have: every one of them gets the same Router and the same causality."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.from_thread
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from lagwise import NotOpen, Policy, Router
from lagwise.fastapi import (
    CausalityMiddleware,
    ReadSession,
    RoutedSession,
    WriteSession,
    lifespan,
    read_session,
    reads,
    writes,
)
from lagwise.testing import Cluster, wait_until
from tests.routing.application import Item
from tests.routing.conftest import in_rotation, router

from .support import (
    IN_RECOVERY,
    PATIENT,
    READ_ONLY,
    SECRET,
    ASGIApp,
    Receive,
    Scope,
    Send,
    Socket,
    application,
    both_in_rotation,
    committed,
    cookie_of,
    cookies_set,
    http,
    insert,
    names,
    opened,
    patient,
    reason_of,
    serving,
    stand_still,
    steady,
)


def with_items(app: FastAPI | APIRouter) -> None:
    """One path to write an item and one to count the items of that name."""

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> None:
        await insert(session, name)

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)


# Without the middleware, and def endpoints


async def test_a_request_without_the_middleware_is_routed(cluster: Cluster) -> None:
    """Without anyone to carry a token, writes go to the primary, reads to a replica, and nothing is set."""
    db = steady(cluster)
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)

    @app.get("/where")
    async def where(session: ReadSession) -> bool:
        return bool(await session.scalar(IN_RECOVERY))

    async with serving(app) as client:
        await both_in_rotation(db)
        written = await client.post("/items/bare")
        await cluster.caught_up()
        assert (written.status_code, "set-cookie" in written.headers) == (200, False)
        assert (await client.get("/items/bare")).json() == 1
        assert (await client.get("/where")).json() is True


async def test_def_endpoints_share_the_causality(cluster: Cluster) -> None:
    """An endpoint in a worker thread uses its session through the loop, and what it writes is in the token."""
    db = patient(cluster)
    app = application(db, route_header=True)

    @app.post("/items/{name}")
    def create(name: str, session: WriteSession) -> None:
        anyio.from_thread.run(insert, session, name)

    @app.get("/items/{name}")
    def count(name: str, session: ReadSession) -> int:
        return anyio.from_thread.run(names, session, name)

    @app.get("/opened-here/{name}")
    def opened_here(name: str) -> int:
        async def ask() -> int:
            async with db.read() as session:
                return await names(session, name)

        return anyio.from_thread.run(ask)

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert cookie_of(await client.post("/items/threaded")) is not None
        shown = await client.get("/items/threaded")
        assert (shown.json(), reason_of(shown)) == (1, "none-caught-up")
        shown = await client.get("/opened-here/threaded")
        assert (shown.json(), reason_of(shown)) == (1, "none-caught-up")


# WebSockets


async def test_a_websocket_opens_a_session_per_message(cluster: Cluster) -> None:
    """What one message wrote, the next one reads, for as long as the socket is open."""
    db = patient(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for name in socket.iter_text():
            async with db.write.begin() as session:
                await insert(session, name)
            async with db.read() as session:
                await socket.send_text(str(await names(session, name)))

    async with opened(app) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with Socket(running, "/ws") as socket:
            assert (await socket.heard())["type"] == "websocket.accept"
            assert [await socket.says("message"), await socket.says("message")] == ["1", "2"]


async def test_a_websocket_honours_the_token_of_its_handshake(cluster: Cluster) -> None:
    """A client that wrote over HTTP reads its write over a WebSocket; without the token it would not."""
    db = patient(cluster)
    app = application(db)
    with_items(app)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: ReadSession) -> None:
        await socket.accept()
        async for name in socket.iter_text():
            await socket.send_text(str(await names(session, name)))

    async with opened(app) as running, http(running) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        token = (await client.post("/items/over-http")).headers["lagwise-token"].encode()
        answers = {}
        for carrier, headers in {
            "cookie": [(b"cookie", b"theme=dark; lagwise=" + token)],
            "header": [(b"lagwise-token", token)],
            "nothing": [],
        }.items():
            async with Socket(running, "/ws", headers) as socket:
                await socket.heard()
                answers[carrier] = await socket.says("over-http")
        assert answers == {"cookie": "1", "header": "1", "nothing": "0"}


async def test_a_websocket_commits_its_write_session_when_it_ends(cluster: Cluster) -> None:
    """WriteSession as a dependency of a WebSocket: one transaction, committed when the endpoint returns."""
    db = steady(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: WriteSession) -> None:
        await socket.accept()
        await insert(session, await socket.receive_text())
        await socket.send_text("written")

    async with opened(app) as running:
        async with Socket(running, "/ws") as socket:
            await socket.heard()
            assert await socket.says("by socket") == "written"
        assert await committed(cluster, "by socket") == 1


async def test_a_websocket_routed_session_may_write(cluster: Cluster) -> None:
    """A WebSocket has no method that says it only reads."""
    db = steady(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: RoutedSession) -> None:
        await socket.accept()
        await socket.send_text(session.info["lagwise.route"].reason)

    async with opened(app) as running, Socket(running, "/ws") as socket:
        await socket.heard()
        assert (await socket.heard())["text"] == "write"


async def test_a_websocket_without_a_primary_is_told_to_come_back(cluster: Cluster) -> None:
    """The handshake of an endpoint that must write is refused with 1013, try again later."""
    db = router(cluster, Policy(probe_interval=0.05))
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: WriteSession) -> None:
        raise AssertionError("never reached")

    async with opened(app) as running:
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        async with Socket(running, "/ws") as socket:
            heard = await socket.heard()
            assert (heard["type"], heard["code"]) == ("websocket.close", 1013)


# Overrides, mounts and middleware


async def test_a_dependency_override_replaces_the_session(cluster: Cluster) -> None:
    """`app.dependency_overrides[read_session]` puts the test's own session in place of a routed one."""
    app = FastAPI()
    mine = create_async_engine(cluster.primary.direct_url)

    async def own() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(mine, info={"mine": True}) as session:
            yield session

    app.dependency_overrides[read_session] = own

    @app.get("/")
    async def show(session: ReadSession) -> dict[str, Any]:
        return {**session.info, "answer": await session.scalar(text("SELECT 42"))}

    async with http(app) as client:
        assert (await client.get("/")).json() == {"mine": True, "answer": 42}
    await mine.dispose()


@pytest.mark.parametrize("again", [False, True], ids=["plain", "with the middleware again"])
async def test_a_mounted_application_shares_router_and_causality(cluster: Cluster, again: bool) -> None:
    """What was written through the mounted application is read through the outer one, and the other way."""
    db = patient(cluster)
    app, mounted = application(db), FastAPI()
    with_items(app)
    with_items(mounted)
    if again:
        mounted.add_middleware(CausalityMiddleware, secret="its own, which is not used")
    app.mount("/sub", mounted)
    async with opened(app) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        for name, first, then in ((f"inwards-{again}", "", "/sub"), (f"outwards-{again}", "/sub", "")):
            async with http(running) as client:
                written = await client.post(f"{first}/items/{name}")
                assert cookies_set(written).count("lagwise") == 1
                assert (await client.get(f"{then}/items/{name}")).json() == 1
            async with http(running) as stranger:
                assert (await stranger.get(f"{then}/items/{name}")).json() == 0


class Passing(BaseHTTPMiddleware):
    """The decorator kind: runs the application in another task."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = str(int(response.headers.get("x-passed", "0")) + 1)
        return response


class Copying:
    """Hands on a copy of the scope, as some middleware does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


STACKS: dict[str, list[Any]] = {
    "one BaseHTTPMiddleware": [Passing],
    "two": [Passing, Passing],
    "a copied scope": [Copying],
    "all of them": [Passing, Copying, Passing],
}


@pytest.mark.parametrize("outermost", [True, False], ids=["causality outermost", "causality innermost"])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
async def test_other_middleware_in_between_loses_nothing(cluster: Cluster, stack: list[Any], outermost: bool) -> None:
    """BaseHTTPMiddleware and copied scopes cut neither the way in of the token nor its way out."""
    db = patient(cluster)
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)
    if not outermost:
        app.add_middleware(CausalityMiddleware, secret=SECRET)
    for middleware in stack:
        app.add_middleware(middleware)
    if outermost:
        app.add_middleware(CausalityMiddleware, secret=SECRET)
    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        written = await client.post("/items/between")
        assert cookie_of(written) is not None
        assert int(written.headers.get("x-passed", "0")) == stack.count(Passing)
        assert (await client.get("/items/between")).json() == await committed(cluster, "between")


@pytest.mark.parametrize("outermost", [True, False])
async def test_gzip_keeps_the_token(cluster: Cluster, outermost: bool) -> None:
    """A compressed answer to a POST carries cookie and header, whichever middleware is outside."""
    db = steady(cluster)
    app = FastAPI(lifespan=lifespan(db))
    middleware: list[tuple[Any, dict[str, Any]]] = [
        (GZipMiddleware, {"minimum_size": 10}),
        (CausalityMiddleware, {"secret": SECRET}),
    ]
    for each, options in middleware if outermost else reversed(middleware):
        app.add_middleware(each, **options)

    @app.post("/")
    async def create(session: WriteSession) -> str:
        await insert(session, "compressed")
        return "long enough " * 100

    async with serving(app) as client:
        written = await client.post("/")
        assert written.headers["content-encoding"] == "gzip"
        cookie = cookie_of(written)
        assert cookie is not None
        assert cookie.value == written.headers["lagwise-token"]


# More than one database


async def test_two_databases_in_one_application(cluster: Cluster, elsewhere: Cluster) -> None:
    """`reads(db2)` and `writes(db2)` use the second database; one token covers both."""
    db, db2 = patient(cluster), Router(elsewhere.primary.url, [elsewhere.replicas[0].url], policy=PATIENT)
    app = FastAPI(lifespan=lifespan(db, db2))
    app.add_middleware(CausalityMiddleware, secret=SECRET, route_header=True)
    with_items(app)

    @app.post("/second/{name}")
    async def create(name: str, session: Annotated[AsyncSession, writes(db2)]) -> None:
        await insert(session, name)

    @app.get("/second/{name}")
    async def count(name: str, session: Annotated[AsyncSession, reads(db2)]) -> int:
        return await names(session, name)

    @app.post("/both/{name}")
    async def create_both(name: str, session: WriteSession, other: Annotated[AsyncSession, writes(db2)]) -> None:
        await insert(session, name)
        await insert(other, name)

    async with opened(app) as running:
        await both_in_rotation(db)
        await in_rotation(db2, "replica-1")
        await stand_still(cluster)
        await stand_still(elsewhere)
        async with http(running) as client:
            await client.post("/second/two")
            assert (await client.get("/second/two")).json() == 1
            assert (await client.get("/items/two")).json() == 0
        async with http(running) as client:
            await client.post("/both/two")
            assert (await client.get("/second/two")).json() == 2
            assert (await client.get("/items/two")).json() == 1
        async with http(running) as stranger:
            assert (await stranger.get("/second/two")).json() == 0
            assert (await stranger.get("/items/two")).json() == 0


async def test_two_routers_open_and_close_together(cluster: Cluster, elsewhere: Cluster) -> None:
    """`lifespan(db, db2)`: both are open while the application serves, and both closed after it."""
    db, db2 = steady(cluster), Router(elsewhere.primary.url)
    async with opened(FastAPI(lifespan=lifespan(db, db2))):
        assert [db.view.primary is not None, db2.view.primary is not None] == [True, True]
    for one in (db, db2):
        with pytest.raises(NotOpen):
            _ = one.view


# What a dependency may ask for


async def test_reads_take_options(cluster: Cluster) -> None:
    """`reads(max_staleness=)`, `reads(primary=True)`, `reads(snapshot=True)` do what `db.read` does with them."""
    db = patient(cluster)
    app = application(db)

    async def about(session: AsyncSession) -> list[Any]:
        level = await session.scalar(text("SELECT current_setting('transaction_isolation')"))
        read_only = await session.scalar(READ_ONLY)
        return [session.info["lagwise.route"].reason, await session.scalar(IN_RECOVERY), level, read_only]

    @app.get("/fresh")
    async def fresh(session: Annotated[AsyncSession, reads(max_staleness=30)]) -> list[Any]:
        return await about(session)

    @app.get("/impossible")
    async def impossible(session: Annotated[AsyncSession, reads(max_staleness=0)]) -> list[Any]:
        return await about(session)

    @app.get("/primary")
    async def primary(session: Annotated[AsyncSession, reads(primary=True)]) -> list[Any]:
        return await about(session)

    @app.get("/snapshot")
    async def snapshot(session: Annotated[AsyncSession, reads(snapshot=True)]) -> list[Any]:
        async with session.begin_nested():
            return await about(session)

    async with serving(app) as client:
        await both_in_rotation(db)
        answers = {path: (await client.get(path)).json() for path in ("/fresh", "/impossible", "/primary", "/snapshot")}
    assert answers == {
        "/fresh": ["fresh", True, "read committed", True],
        "/impossible": ["all-lagging", False, "read committed", True],
        "/primary": ["strong", False, "read committed", True],
        "/snapshot": ["fresh", True, "repeatable read", True],
    }


METHODS = ["GET", "HEAD", "OPTIONS", "QUERY", "POST", "PUT", "PATCH", "DELETE"]


async def test_a_routed_session_goes_by_the_method(cluster: Cluster) -> None:
    """GET, HEAD, OPTIONS and QUERY read; every other method may write, and is committed."""
    db = steady(cluster)
    app = application(db, route_header=True)

    @app.api_route("/", methods=METHODS)
    async def any_method(session: RoutedSession, request: Request) -> None:
        if not await session.scalar(READ_ONLY):
            await insert(session, f"by {request.method}")

    async with serving(app) as client:
        await both_in_rotation(db)
        went = {}
        for method in METHODS:
            client.cookies.clear()
            answer = await client.request(method, "/")
            went[method] = [answer.status_code, reason_of(answer), await committed(cluster, f"by {method}")]
    assert went == {
        **{method: [200, "fresh", 0] for method in METHODS[:4]},
        **{method: [200, "write", 1] for method in METHODS[4:]},
    }


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


# The lifespan


async def test_a_lifespan_keeps_the_one_that_was_there(cluster: Cluster) -> None:
    """`lifespan(db, inner=...)`: runs inside, with the Router open, and its state reaches the requests."""
    db = steady(cluster)
    happened = []

    @asynccontextmanager
    async def inner(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with db.read() as session:
            happened.append(await session.scalar(text("SELECT 'started'")))
        yield {"settings": "kept"}
        async with db.read() as session:
            happened.append(await session.scalar(text("SELECT 'stopped'")))

    app = FastAPI(lifespan=lifespan(db, inner=inner))

    @app.get("/")
    async def show(request: Request, session: ReadSession) -> list[Any]:
        return [request.state.settings, await session.scalar(text("SELECT 1"))]

    async with serving(app) as client:
        assert (await client.get("/")).json() == ["kept", 1]
    assert happened == ["started", "stopped"]


async def test_an_inner_lifespan_without_state(cluster: Cluster) -> None:
    """An inner lifespan that yields nothing is fine too, and `app.state` it sets is kept."""
    db = steady(cluster)

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[None]:
        app.state.mine = "kept"
        yield

    app = FastAPI(lifespan=lifespan(db, inner=inner))
    with_items(app)

    @app.get("/")
    async def show(request: Request) -> Any:
        return request.app.state.mine

    async with serving(app) as client:
        assert (await client.get("/")).json() == "kept"
        assert (await client.get("/items/none")).status_code == 200


async def test_a_failing_inner_lifespan_closes_the_router(cluster: Cluster) -> None:
    """When the application does not start, the Router does not stay open."""
    db = steady(cluster)

    @asynccontextmanager
    async def inner(_: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no configuration")
        yield

    with pytest.raises(RuntimeError, match="no configuration"):
        async with opened(FastAPI(lifespan=lifespan(db, inner=inner))):
            pass
    with pytest.raises(NotOpen):
        _ = db.view


async def test_a_missing_lifespan_says_so() -> None:
    """A request to an application without `lifespan(db)` fails with NotOpen, which names the line to write."""
    app = FastAPI()
    with_items(app)
    async with http(app) as client:
        assert (await client.get("/items/x")).status_code == 500
    async with http(app, raising=True) as client:
        with pytest.raises(NotOpen, match=r"FastAPI\(lifespan=lifespan\(db\)\)"):
            await client.get("/items/x")


def test_a_lifespan_needs_a_router() -> None:
    """`lifespan()` without a Router is refused where it is written."""
    with pytest.raises(ValueError, match="lifespan needs a Router"):
        lifespan()


async def test_a_second_database_outside_the_lifespan_says_so(cluster: Cluster) -> None:
    """`reads(db2)` of a Router that nobody opened fails with NotOpen."""
    db, forgotten = steady(cluster), steady(cluster)
    app = application(db)

    @app.get("/")
    async def show(session: Annotated[AsyncSession, reads(forgotten)]) -> None:
        raise AssertionError("never reached")

    async with opened(app) as running, http(running, raising=True) as client:
        with pytest.raises(NotOpen, match="is not open"):
            await client.get("/")


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
        written = await client.post("/streamed")
        assert (written.text, cookie_of(written) is not None) == ("streamed\n", True)


# The application's own session classes


class Results(AsyncSession):
    """What SQLModel does: an AsyncSession with a method of its own."""

    async def exec(self, statement: Any) -> list[Any]:
        """Scalars as a list."""
        return list((await self.scalars(statement)).all())


class Noting(Session):
    """A synchronous session class of the application's own."""

    def note(self) -> str:
        """Something to recognise it by."""
        return "mine"


async def test_session_classes_of_the_application_are_kept(cluster: Cluster) -> None:
    """`class_` and `sync_session_class` in session_options: instances of both, and routed all the same."""
    db = patient(cluster, session_options={"class_": Results, "sync_session_class": Noting, "info": {"tenant": 7}})
    app = application(db)
    with_items(app)

    @app.get("/mine/{name}")
    async def mine(name: str, session: ReadSession) -> list[Any]:
        assert isinstance(session, Results)
        assert isinstance(session.sync_session, Noting)
        found = await session.exec(select(Item.name).where(Item.name == name))
        return [found, session.sync_session.note(), session.info["tenant"]]

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        await client.post("/items/own-class")
        assert (await client.get("/mine/own-class")).json() == [["own-class"], "mine", 7]


async def test_a_class_that_brings_its_own_sync_class(cluster: Cluster) -> None:
    """An AsyncSession subclass with `sync_session_class` set keeps it."""

    class Bringing(AsyncSession):
        sync_session_class = Noting

    async with steady(cluster, session_options={"class_": Bringing}) as db, db.write() as session:
        assert isinstance(session, Bringing)
        assert isinstance(session.sync_session, Noting)
        await session.execute(select(Item).limit(1))
        assert session.info["lagwise.route"].node == "primary"
