"""What a user copies works: with replicas, without, with no server at all; and the naive one is as bad as told."""

import importlib
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from fastapi import FastAPI

from lagwise.fastapi import CausalityMiddleware
from lagwise.testing import Cluster, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
App: TypeAlias = FastAPI | CausalityMiddleware
Load: TypeAlias = Callable[..., App]
MILK = {"text": "milk"}


@pytest.fixture(scope="module", autouse=True)
async def without_items(running: Cluster) -> AsyncIterator[None]:
    """The table of the examples goes with them: other applications have one of that name."""
    yield
    await running.primary.execute("DROP TABLE IF EXISTS items")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load("app", primary, *replicas)`: the application of that file, for these nodes."""

    def load(name: str, primary: str, *replicas: str) -> App:
        monkeypatch.setenv("LAGWISE_PRIMARY", primary)
        monkeypatch.setenv("LAGWISE_REPLICAS", ",".join(replicas))
        monkeypatch.setenv("LAGWISE_SECRET", "a secret for tests")
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        app = module.app
        assert isinstance(app, FastAPI | CausalityMiddleware)
        return app

    return load


@pytest.fixture(scope="module", autouse=True)
async def nothing_left(running: Cluster) -> AsyncIterator[None]:
    """No table of the examples stays: the README's application has one of the same name."""
    yield
    await running.primary.execute("DROP TABLE IF EXISTS items")


@asynccontextmanager
async def browser(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a cookie jar, and the application alive behind it."""
    transport = httpx.ASGITransport(app)
    inner = app.app if isinstance(app, CausalityMiddleware) else app
    assert isinstance(inner, FastAPI)
    async with (
        inner.router.lifespan_context(inner),
        httpx.AsyncClient(transport=transport, base_url="http://app") as http,
    ):
        yield http


@asynccontextmanager
async def standing_still(cluster: Cluster) -> AsyncIterator[None]:
    """No replica shows anything new; before, they show everything."""
    await cluster.caught_up()
    for node in cluster.replicas:
        await cluster.pause_replay(node)
    try:
        yield
    finally:
        for node in cluster.replicas:
            await cluster.resume_replay(node)


def app_on(cluster: Cluster, load: Load, name: str = "app") -> App:
    return load(name, cluster.primary.url, *(node.url for node in cluster.replicas))


async def test_a_client_reads_what_it_wrote_at_any_lag(cluster: Cluster, load: Load) -> None:
    """While no replica replays, an item is there for its creator: on the primary, by a read that says why."""
    async with browser(app_on(cluster, load)) as http, standing_still(cluster):
        made = await http.post("/items", json=MILK)
        assert made.status_code == 201
        read = await http.get(f"/items/{made.json()['id']}")
        assert (read.status_code, read.json()) == (200, made.json())
        assert read.headers["Lagwise-Route"] == "primary; reason=none-caught-up"
        assert made.json() in (await http.get("/items")).json()


async def test_reads_go_to_replicas_that_have_the_write(cluster: Cluster, load: Load) -> None:
    """Once a replica has replayed the item, the creator's reads are a replica's."""
    async with browser(app_on(cluster, load)) as http:
        made = await http.post("/items", json=MILK)
        await cluster.caught_up()
        read = await http.get(f"/items/{made.json()['id']}")
        node, _, reason = read.headers["Lagwise-Route"].partition("; ")
        assert (read.status_code, node in {"replica-1", "replica-2"}, reason) == (200, True, "reason=caught-up")


async def test_one_function_serves_a_read_and_a_write(cluster: Cluster, load: Load) -> None:
    """GET and PUT share an endpoint with RoutedSession: PUT writes, on the primary, and GET then sees it."""
    async with browser(app_on(cluster, load)) as http, standing_still(cluster):
        path = f"/items/{(await http.post('/items', json=MILK)).json()['id']}/done"
        assert (await http.get(path)).json() is False
        put = await http.put(path)
        assert (put.json(), put.headers["Lagwise-Route"]) == (True, "primary; reason=write")
        assert (await http.get(path)).json() is True


async def test_what_does_not_exist_is_not_found(cluster: Cluster, load: Load) -> None:
    """404 for an item that nobody created, in every endpoint that looks one up."""
    async with browser(app_on(cluster, load)) as http:
        await cluster.caught_up()
        answers = [await http.get("/items/0"), await http.get("/items/0/done"), await http.put("/items/0/done")]
        assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_it_describes_itself(cluster: Cluster, load: Load) -> None:
    """The OpenAPI description builds without a warning, and health says that it can serve."""
    async with browser(app_on(cluster, load)) as http:
        assert set((await http.get("/openapi.json")).json()["paths"]) >= {"/items", "/items/{item_id}/done"}

        async def well() -> bool:
            return bool((await http.get("/health/ready")).json()["status"] == "pass")

        await wait_until(well, what="health says that it can serve")
        assert (await http.get("/docs")).status_code == 200


async def test_without_replicas_it_is_the_same_application(cluster: Cluster, load: Load) -> None:
    """With only a primary, reads go there, and the client notices nothing."""
    async with browser(load("app", cluster.primary.url)) as http:
        made = await http.post("/items", json=MILK)
        read = await http.get(f"/items/{made.json()['id']}")
        assert (read.json(), read.headers["Lagwise-Route"]) == (made.json(), "primary; reason=no-replicas")


@pytest.mark.parametrize("database", ["", "/todo.db"])
async def test_sqlite_will_do_for_unit_tests(tmp_path: Path, load: Load, database: str) -> None:
    """In memory or in a file, SQLite serves every endpoint."""
    url = f"sqlite+aiosqlite:///{tmp_path}{database}" if database else "sqlite+aiosqlite://"
    async with browser(load("app", url)) as http:
        made = await http.post("/items", json=MILK)
        path = f"/items/{made.json()['id']}"
        assert (await http.put(f"{path}/done")).json() is True
        assert (await http.get(path)).json() == {**made.json(), "done": True}
        assert (await http.get("/items")).json() == [{**made.json(), "done": True}]


NEEDS = {
    "jobs.arq": "arq",
    "jobs.celery": "celery",
    "jobs.taskiq": "taskiq",
    "patterns.admin": "sqladmin",
    "patterns.litestar_app": "litestar",
    "patterns.starlette_app": "starlette",
}


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("replicas", [None, ""], ids=["unset", "empty"])
def test_a_variable_without_replicas_is_none(monkeypatch: pytest.MonkeyPatch, name: str, replicas: str | None) -> None:
    """LAGWISE_REPLICAS that is empty or not set is a Router with a primary only, in each example."""
    pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed: uv sync --group integrations")
    monkeypatch.setenv("LAGWISE_PRIMARY", "postgresql+asyncpg://app:secret@primary/shop")
    monkeypatch.delenv("LAGWISE_REPLICAS", raising=False)
    if replicas is not None:
        monkeypatch.setenv("LAGWISE_REPLICAS", replicas)
    monkeypatch.setenv("LAGWISE_SECRET", "a secret for tests")
    monkeypatch.delitem(sys.modules, f"examples.{name}", raising=False)
    module = importlib.import_module(f"examples.{name}")
    assert list(module.db.pools) == ["primary"]


async def test_the_naive_recipe_misses_its_own_writes(cluster: Cluster, load: Load) -> None:
    """The same requests to the usual two engines: 404 for the client's own item, from either replica."""
    async with browser(app_on(cluster, load, "naive")) as http, standing_still(cluster):
        made = await http.post("/items", json=MILK)
        path = f"/items/{made.json()['id']}"
        assert made.status_code == 201
        assert [(await http.get(path)).status_code for _ in cluster.replicas] == [404, 404]
        assert (await http.put(f"{path}/done")).json() is True


async def test_the_naive_recipe_works_while_nothing_lags(cluster: Cluster, load: Load) -> None:
    """It is the usual recipe, not a straw man: with replicas that are caught up it answers as `app.py` does."""
    async with browser(app_on(cluster, load, "naive")) as http:
        made = await http.post("/items", json=MILK)
        path = f"/items/{made.json()['id']}"
        await cluster.caught_up()
        assert (await http.get(path)).json() == made.json()
        assert made.json() in (await http.get("/items")).json()
        assert (await http.get(f"{path}/done")).json() is False
