"""The application of docs/fastapi.md does what the page says of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from lagwise.fastapi import CausalityMiddleware
from lagwise.testing import Cluster
from tests.kit.http import ASGIApp, Socket, http, opened

from .pages import ROOT, blocks, run


@pytest.fixture
async def page(cluster: Cluster, second: Cluster, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """All blocks of the page, one after the other; the replica stands still from here on."""
    urls = {"primary": cluster.primary.url, "replica-1": cluster.replicas[0].url, "archive": second.primary.url}
    shown = [block for block in blocks(ROOT / "docs" / "fastapi.md") if block.language == "python"]
    assert {"application"} == {block.how for block in shown}
    module = await run(shown, urls, monkeypatch)
    await cluster.pause_replay("replica-1")
    return module


@asynccontextmanager
async def wrapped(app: FastAPI) -> AsyncIterator[ASGIApp]:
    """An application of the page behind the middleware, as the page places it."""
    async with opened(app, lambda inner: CausalityMiddleware(inner, secret="a secret")) as running:
        yield running


async def test_its_endpoints_read_what_the_client_wrote(page: ModuleType) -> None:
    """Each kind of session, a stream, a mounted application: all see the item that was just created."""
    async with wrapped(page.api) as app, http(app) as client:
        before = (await client.get("/admin/items")).json()
        assert (await client.post("/items/shown")).status_code == 200
        assert "shown" in (await client.get("/items")).json()
        assert "shown" in (await client.get("/shelf")).json()
        assert "shown" in (await client.get("/export")).text.split()
        assert (await client.get("/admin/items")).json() > before
        assert (await client.get("/fresh")).json() > before
        assert (await client.get("/strong")).json() is True
        assert (await client.post("/cart/x")).json() == "write"
        # On the primary, because the replica lacks the write; on a slow machine it is above max_lag by now, too.
        assert (await client.get("/cart/x")).json() in {"none-caught-up", "all-lagging"}
        assert (await client.get("/health/live")).status_code == 200


async def test_the_usual_get_db(page: ModuleType) -> None:
    """The dependency of every guide, over the Router's sessions: its client reads what it wrote."""
    async with wrapped(page.api) as app, http(app) as client:
        assert (await client.post("/as-before/kept")).status_code == 200
        assert "kept" in (await client.get("/items")).json()


async def test_a_dependency_with_another_scope_is_refused(page: ModuleType) -> None:
    """FastAPI says so when the endpoint is declared, by the name that the page gives."""
    with pytest.raises(Exception, match="scope") as refused:
        page.api.get("/refused")(_on_the_default_scope(page))
    assert type(refused.value).__name__ == "DependencyScopeError"


def _on_the_default_scope(page: ModuleType) -> Any:
    async def endpoint(names: Annotated[list[str], Depends(page.shelf)]) -> list[str]:
        return names

    return endpoint


async def test_connections_without_a_session(page: ModuleType) -> None:
    """Written by COPY, read by the driver and by Core, in a report of the page's own."""
    async with wrapped(page.api) as app, http(app) as client:
        assert (await client.post("/bulk", json=["bulk a", "bulk b"])).status_code == 200
        assert (await client.get("/bulk/bulk")).json() == ["bulk a", "bulk b"]
        assert len((await client.get("/ids")).json()) >= 2
        async with page.db.write.asyncpg() as connection:
            assert await connection.fetchval("SELECT count(*) FROM item WHERE name LIKE 'bulk %'") == 2
        assert "bulk a" not in await page.report()  # nobody's token: a replica, which stands still


async def test_an_explicit_commit_is_in_the_token(page: ModuleType) -> None:
    """The token in the job's payload stands for the order; without the commit it would be empty."""
    async with wrapped(page.api) as app, http(app) as client:
        assert (await client.post("/orders/ordered")).status_code == 200
        with page.Causality(page.queue[-1]) as seen:
            assert seen.token
            async with page.db.read() as session:
                assert await session.scalar(page.select(page.Item.id).where(page.Item.name == "ordered")) is not None


async def test_a_background_task_sees_what_the_request_wrote(page: ModuleType) -> None:
    """The task of the page reads the item that its request created."""
    async with wrapped(page.api) as app, http(app) as client:
        assert (await client.post("/confirmed/told")).status_code == 200
        assert page.sent == ["told"]


async def test_a_socket_is_one_causality(page: ModuleType) -> None:
    """What one message wrote the next read sees."""
    async with (
        wrapped(page.api) as app,
        Socket(app, "/chat") as socket,
    ):
        assert (await socket.heard())["type"] == "websocket.accept"
        assert await socket.says("said once") == "1"
        assert await socket.says("said once") == "2"


async def test_two_databases(page: ModuleType) -> None:
    """The second database is written and read by its own dependencies."""
    async with wrapped(page.both) as app, http(app) as client:
        assert (await client.post("/archive/put-away")).status_code == 200
        assert (await client.get("/archive/put-away")).json() == 1


async def test_an_override_replaces_the_session(page: ModuleType) -> None:
    """The endpoint gets what the test gives it."""
    page.use_one_item()
    async with opened(page.api) as app, http(app) as client:
        assert (await client.get("/items")).json() == ["from the test"]
