"""What an endpoint has only added, an answer waits for as well; and what it does not have to wait for."""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.http import (
    SECRET,
    ASGIApp,
    Asking,
    Message,
    Receive,
    Scope,
    Send,
    committed,
    http,
    insert,
    names,
    opened,
)
from tests.kit.numbers import enough
from tests.kit.routers import both_in_rotation, patient, stand_still, steady

# What an endpoint leaves for the dependency's COMMIT, and how many items of the name there are after it.
KINDS = {"added": 1, "after a commit": 1, "changed": 1, "deleted": 0}


def shop(db: Router, **options: Any) -> FastAPI:
    """Endpoints that leave everything to the dependency's `commit()`, on FastAPI's default scope."""
    app = FastAPI(lifespan=lifespan(db))
    app.add_middleware(CausalityMiddleware, secret=SECRET, **options)

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with db.write(expire_on_commit=False) as session:
            yield session
            with suppress(DBAPIError):
                await session.commit()

    async def get_bare() -> AsyncIterator[AsyncSession]:
        async with db.write() as session:
            yield session

    usual = Annotated[AsyncSession, Depends(get_db)]

    @app.post("/added/{name}")
    async def added(name: str, session: usual) -> None:
        session.add(Item(name=name))

    @app.post("/after a commit/{name}")
    async def after_a_commit(name: str, session: usual) -> None:
        session.add(Item(name="first"))
        await session.commit()
        session.add(Item(name=name))

    @app.post("/changed/{name}")
    async def changed(name: str, session: usual) -> None:
        item = Item(name="another")
        session.add(item)
        await session.commit()
        item.name = name

    @app.post("/deleted/{name}")
    async def deleted(name: str, session: usual) -> None:
        item = Item(name=name)
        session.add(item)
        await session.commit()
        await session.delete(item)

    @app.post("/later/{name}")
    async def later(name: str, session: Annotated[AsyncSession, Depends(get_bare)], tasks: BackgroundTasks) -> None:
        async def task() -> None:
            with suppress(DBAPIError):
                async with db.write.begin() as another:
                    await insert(another, name)

        await insert(session, "of the request")
        await session.commit()
        await session.scalar(select(Item).limit(1))
        tasks.add_task(task)

    @app.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)

    return app


async def test_what_is_only_added_is_not_missed(cluster: Cluster) -> None:
    """Dozens of pairs with replay paused, each by a client that had nothing: 0 stale, and each answer has its token."""
    db = patient(cluster)
    async with opened(shop(db, hold=30)) as app, http(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        missed = 0
        for number in range(enough(20, 200)):
            client.cookies.clear()
            answer = await client.post(f"/added/added {number}")
            assert "lagwise-token" in answer.headers
            missed += (await client.get(f"/items/added {number}")).json() != 1
        assert missed == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_flushed_is_committed_before_the_answer(cluster: Cluster, kind: str) -> None:
    """Objects that were added, changed or deleted, and not sent: all clients see it when the response starts."""
    asking: list[Asking] = []

    def ask(app: ASGIApp) -> ASGIApp:
        asking.append(Asking(app, cluster, f"watched {kind}"))
        return asking[-1]

    async with opened(shop(steady(cluster), hold=30), ask) as app, http(app) as client:
        await client.post(f"/{kind}/watched {kind}")
    assert [seen for each in asking for seen in each.seen] == [(200, KINDS[kind])]


async def test_a_refused_commit_of_what_was_added_is_a_500(cluster: Cluster, refusing: str) -> None:
    """Also where the dependency swallows the error."""
    async with opened(shop(steady(cluster), hold=30)) as app, http(app) as client:
        assert (await client.post(f"/added/{refusing}")).status_code == 500
        assert (await client.post("/added/fine")).status_code == 200
    assert await committed(cluster, refusing) == 0


async def test_what_a_background_task_is_refused_does_not_make_an_answer_false(cluster: Cluster, refusing: str) -> None:
    """The endpoint has committed, its answer is 200, and a task with a session of its own runs into an error."""
    async with opened(shop(steady(cluster), hold=30)) as app, http(app) as client:
        assert (await client.post(f"/later/{refusing}")).status_code == 200
    assert await committed(cluster, refusing) == 0


# What the server is to take from elsewhere


async def test_a_file_that_the_server_sends_is_not_held_back(cluster: Cluster, tmp_path: Path) -> None:
    """The response leaves before the application returns, which may remove the file; the client is in doubt."""
    db = steady(cluster)
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with db.write.begin() as session:
            await insert(session, "with a file")
            await send({"type": "http.response.start", "status": 200, "headers": ((b"x-of", b"app"),)})
            await send({"type": "http.response.pathsend", "path": str(tmp_path / "gone")})
            assert [each["type"] for each in sent] == ["http.response.start", "http.response.pathsend"]

    await serve_once(db, app, sent)
    assert {b"x-of", b"lagwise-token"} <= {name for name, _ in sent[0]["headers"]}


async def test_headers_may_be_any_iterable(cluster: Cluster) -> None:
    """A held response keeps all of them, also where they can be read once only."""
    db = steady(cluster)
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with db.write.begin() as session:
            await insert(session, "with headers")
            headers = ((name, b"1") for name in (b"x-one", b"content-length", b"x-last"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"1"})

    await serve_once(db, app, sent)
    assert {b"x-one", b"content-length", b"x-last", b"lagwise-token"} <= {name for name, _ in sent[0]["headers"]}


# One scope, served twice


async def test_a_scope_that_is_served_again_has_a_causality_again(cluster: Cluster) -> None:
    """A retry around the middleware: the write of the second attempt is not missed."""
    db = patient(cluster)
    api = FastAPI(lifespan=lifespan(db))
    attempts: list[str] = []

    @api.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> None:
        attempts.append(name)
        if attempts.count(name) > 1:
            await insert(session, name)

    @api.get("/items/{name}")
    async def count(name: str, session: ReadSession) -> int:
        return await names(session, name)

    def retrying(app: Any) -> Any:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            inner = CausalityMiddleware(app, secret=SECRET)
            if scope.get("method") == "POST":

                async def discard(_: Message) -> None: ...

                await inner(scope, receive, discard)
            await inner(scope, receive, send)

        return run

    async with opened(api, retrying) as app, http(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert "lagwise-token" in (await client.post("/items/retried")).headers
        assert (await client.get("/items/retried")).json() == 1


async def test_a_store_that_no_middleware_uses_is_told(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """A mounted application has a middleware with a store, inside of another: one WARNING says what to do."""
    from lagwise.store import MemoryStore

    inner = FastAPI()
    outer = FastAPI(lifespan=lifespan(steady(cluster)))
    outer.mount("/inner", CausalityMiddleware(inner, secret=SECRET, store=MemoryStore()))
    outer.add_middleware(CausalityMiddleware, secret=SECRET)
    async with opened(outer) as app, http(app) as client:
        with caplog.at_level(logging.WARNING, "lagwise"):
            for _ in range(3):
                await client.get("/inner/nothing")
    assert [each.levelname for each in caplog.records if "middleware-ignored" in each.message] == ["WARNING"]


async def serve_once(db: Router, app: ASGIApp, sent: list[Message]) -> None:
    """One request of the application, held for as long as it takes; what is sent goes into the list."""

    async def send(message: Message) -> None:
        sent.append(message)

    async with db:
        await CausalityMiddleware(app, secret=SECRET, hold=30)(_scope(), _no_more, send)


def _scope() -> Scope:
    return {"type": "http", "method": "POST", "path": "/", "headers": [], "client": None, "extensions": {}}


async def _no_more() -> Message:
    return {"type": "http.disconnect"}
