"""COMMIT precedes the response, whoever commits: the guides' own dependency, on FastAPI's default scope."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.base import BaseHTTPMiddleware

from lagwise import Router
from lagwise._client import holding
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster
from tests.kit.http import (
    SECRET,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    Wrap,
    committed,
    cookie_of,
    http,
    insert,
    names,
    opened,
    unwrapped,
)
from tests.kit.logs import a_filter_that_raises
from tests.kit.numbers import enough
from tests.kit.routers import both_in_rotation, patient, stand_still, steady
from tests.kit.serving import client as a_client
from tests.kit.serving import served


def guide(db: Router, gate: asyncio.Event | None = None, **options: Any) -> FastAPI:
    """An application as the guides write it, over `db.write` in place of their session maker.

    What goes on after the beginning of a response ends at the gate.
    """
    gate = gate or asyncio.Event()
    app = FastAPI(lifespan=lifespan(db))
    if options.pop("added", True):
        app.add_middleware(CausalityMiddleware, secret=SECRET, **options)

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with db.write() as session:
            try:
                yield session
                await session.commit()
            except Exception:
                await session.rollback()
                raise

    usual = Annotated[AsyncSession, Depends(get_db)]

    @app.post("/items/{name}")
    async def create(name: str, session: usual) -> None:
        await insert(session, name)

    @app.post("/slow/{name}")
    async def slow(name: str, session: usual, tasks: BackgroundTasks) -> None:
        await insert(session, name)
        tasks.add_task(gate.wait)

    @app.post("/stream/{name}")
    async def stream(name: str, session: usual) -> StreamingResponse:
        await insert(session, name)
        return StreamingResponse(pieces(gate))

    @app.post("/untouched")
    async def untouched(session: usual) -> None:
        pass

    @app.post("/large/{name}")
    async def large(name: str, session: usual) -> StreamingResponse:
        await insert(session, name)
        return StreamingResponse(megabytes(), headers={"content-length": str(1 << 20)})

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)

    return app


async def pieces(gate: asyncio.Event) -> AsyncIterator[str]:
    """A stream whose last piece comes when its first one has been seen, however long that takes."""
    yield "first"
    await gate.wait()
    yield "last"


async def megabytes() -> AsyncIterator[bytes]:
    """More than a response may keep back."""
    for _ in range(16):
        yield bytes(1 << 16)


class Watching:
    """Notes what is sent, and how much of the item was there for everybody then."""

    def __init__(self, app: ASGIApp, cluster: Cluster, name: str) -> None:
        self.app, self.cluster, self.name = app, cluster, name
        self.sent: list[tuple[Any, int]] = []
        self.first = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watching(message: Message) -> None:
            self.sent.append((message.get("status"), await committed(self.cluster, self.name)))
            await send(message)
            if message.get("body") == b"first":
                self.first.set()

        await self.app(scope, receive, watching)


def wrapped(app: ASGIApp) -> ASGIApp:
    """The middleware around the application object."""
    return CausalityMiddleware(app, secret=SECRET)


async def stale(db: Router, cluster: Cluster, app: FastAPI, pairs: int, kind: str) -> int:
    """Of so many pairs of a write and a read by one client each, how many reads missed the write."""
    async with opened(app) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        missed = 0
        async with http(running) as client:
            for number in range(pairs):
                client.cookies.clear()
                await client.post(f"/items/{kind} {number}")
                missed += (await client.get(f"/items/{kind} {number}")).json() != 1
        return missed


async def test_the_guides_dependency_misses_no_write(cluster: Cluster) -> None:
    """Hundreds of pairs with replay paused, each by a client that had nothing: 0 stale."""
    db = patient(cluster)
    assert await stale(db, cluster, guide(db, hold=2), enough(200, 1000), "held") == 0


async def test_not_to_hold_misses_all(cluster: Cluster) -> None:
    """The naive variant: `hold=0` is the middleware without it, and every write is missed."""
    db = patient(cluster)
    assert await stale(db, cluster, guide(db, hold=0), 20, "not held") == 20


@pytest.mark.parametrize("added", [True, False], ids=["added", "wrapped"])
@pytest.mark.parametrize("between", [False, True], ids=["plain", "BaseHTTPMiddleware between"])
async def test_commit_precedes_what_is_sent(cluster: Cluster, added: bool, between: bool) -> None:
    """Nothing of the response leaves before everybody sees the row."""
    db = steady(cluster)
    app = guide(db, added=False)
    if between:
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    if added:
        app.add_middleware(CausalityMiddleware, secret=SECRET, hold=5)
    name = f"watched {added} {between}"
    watching: list[Watching] = []

    def watch(inner: ASGIApp) -> ASGIApp:
        watching.append(Watching(inner if added else CausalityMiddleware(inner, secret=SECRET, hold=5), cluster, name))
        return watching[-1]

    async with opened(app, watch) as running, http(running) as client:
        answer = await client.post(f"/items/{name}")
        assert (answer.status_code, answer.json(), cookie_of(answer) is not None) == (200, None, True)
    sent = next(each.sent for each in watching if each.sent)
    assert sent[0] == (200, 1)


@pytest.mark.parametrize("wrap", [unwrapped, wrapped], ids=["added", "wrapped"])
async def test_a_commit_that_fails_is_a_500_on_the_wire(cluster: Cluster, refusing: str, wrap: Wrap) -> None:
    """A deferred constraint: one status line, and it is 500. The prepared 200 is never sent."""
    db = steady(cluster)
    app = guide(db, added=wrap is unwrapped)
    async with served(wrap(app)) as url:
        host, port = url.removeprefix("http://").split(":")
        reading, writing = await asyncio.open_connection(host, int(port))
        path = refusing.replace(" ", "%20")
        writing.write(
            f"POST /items/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        raw = await reading.read()
        writing.close()
    assert raw.count(b"HTTP/1.1 ") == 1
    assert raw.startswith(b"HTTP/1.1 500")
    assert b"lagwise-token" not in raw
    assert await committed(cluster, refusing) == 0


async def test_a_background_task_delays_the_answer_by_the_moment(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that does not end stands between response and COMMIT: the answer leaves in doubt, with one warning."""
    monkeypatch.setattr(holding, "_warned", set())
    db = steady(cluster)
    gate = asyncio.Event()
    async with served(guide(db, gate)) as url, a_client(url) as client:
        began = asyncio.get_running_loop().time()
        with caplog.at_level(logging.WARNING, "lagwise"):
            first = await client.post("/slow/one")  # answered while the task waits at the gate
            took = asyncio.get_running_loop().time() - began
            await client.post("/slow/two")
        gate.set()
        assert 0.1 <= took < 1.5
        assert first.status_code == 200
        warned = [record for record in caplog.records if record.message.startswith("answered-before-commit")]
        assert [(record.levelname, getattr(record, "route", "")) for record in warned] == [("WARNING", "/slow/{name}")]
        assert 'scope="function"' in warned[0].message
        assert "WriteSession" in warned[0].message
        assert cookie_of(first) is not None


async def test_a_filter_that_raises_loses_no_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning of an answer before its COMMIT, and that of a forged token, raise in the application's logging."""
    monkeypatch.setattr(holding, "_warned", set())
    db = steady(cluster)
    gate = asyncio.Event()
    async with served(guide(db, gate)) as url, a_client(url) as client:
        with a_filter_that_raises():
            answer = await client.post("/slow/unlogged", headers={"lagwise-token": "forged"})
        gate.set()
        assert answer.status_code == 200
        assert cookie_of(answer) is not None


async def test_a_stream_is_not_held_beyond_its_start(cluster: Cluster) -> None:
    """A stream without a length begins at once, whatever the moment; its token is in doubt."""
    db = steady(cluster)
    gate = asyncio.Event()
    watching: list[Watching] = []

    def watch(inner: ASGIApp) -> ASGIApp:
        watching.append(Watching(CausalityMiddleware(inner, secret=SECRET, hold=30), cluster, "streamed"))
        watching[-1].first = gate
        return watching[-1]

    app = guide(db, gate, added=False)
    async with opened(app, watch) as running, http(running) as client, asyncio.timeout(15):
        answer = await client.post("/stream/streamed")  # a stream that is held never comes to its last piece
    assert answer.text == "firstlast"
    assert cookie_of(answer) is not None
    watched = next(each for each in watching if each.sent)
    assert watched.sent[0] == (200, 0)


async def test_a_large_body_is_not_kept(cluster: Cluster) -> None:
    """Beyond a quarter of a megabyte the application waits for the moment to pass, and nothing is lost."""
    db = steady(cluster)
    async with opened(guide(db)) as running, http(running) as client:
        answer = await client.post("/large/large")
    assert (answer.status_code, len(answer.content)) == (200, 1 << 20)


async def test_nothing_is_held_that_has_not_written(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lagwise's own dependencies, reads, and a session that ran nothing: no response is held."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("held")

    monkeypatch.setattr("lagwise.asgi.Hold", never)
    db = steady(cluster)
    app = guide(db)

    @app.post("/own/{name}")
    async def own(name: str, session: WriteSession) -> None:
        await insert(session, name)

    async with opened(app) as running, http(running) as client:
        for method, path in (("POST", "/own/kept"), ("POST", "/untouched"), ("GET", "/items/kept")):
            assert (await client.request(method, path)).status_code == 200
        with pytest.raises(AssertionError, match="held"):
            await httpx.AsyncClient(transport=httpx.ASGITransport(running), base_url="http://x").post("/items/held")


@pytest.mark.parametrize("hold", [-1, float("nan"), float("inf")])
def test_a_moment_is_a_number_of_seconds(hold: float) -> None:
    """At least 0, and finite."""
    with pytest.raises(ValueError, match="hold must be"):
        CausalityMiddleware(unwrapped, secret="s", hold=hold)  # type: ignore[arg-type]
