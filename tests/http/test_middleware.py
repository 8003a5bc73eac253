"""Other middleware and mounted applications: the token finds its way through them, in and out."""

from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from lagwise.fastapi import (
    CausalityMiddleware,
    WriteSession,
    lifespan,
)
from lagwise.testing import Cluster
from tests.kit.http import (
    SECRET,
    ASGIApp,
    Receive,
    Scope,
    Send,
    application,
    committed,
    cookie_of,
    cookies_set,
    http,
    insert,
    opened,
    serving,
    with_items,
)
from tests.kit.routers import both_in_rotation, patient, stand_still, steady


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
