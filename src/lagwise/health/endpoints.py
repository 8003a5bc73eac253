"""Health over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.routing import APIRoute

from lagwise.health.answers import live, nodes, pools, ready
from lagwise.health.draining import ProcessDrain
from lagwise.health.models import Health, Nodes, PoolsHealth
from lagwise.health.page import add_page
from lagwise.router import Router

_MEDIA_TYPE = "application/health+json"
_FOR = {"name": "for", "in": "query", "required": False, "schema": {"type": "string", "enum": ["reads", "writes"]}}


def health_router(db: Router, *, page: bool = False, drain: ProcessDrain | None = None) -> APIRouter:
    """`/live`, `/ready` (`?for=reads|writes`), `/nodes` and `/pools`; mount it with a prefix.

    200 for pass and warn, 503 for fail, as `application/health+json`. Nothing is asked of any database. While the
    process drains, `/ready` is 503; with `ProcessDrain(post=True)` there is `POST /drain`, which begins that.
    With `page=True` there is a status page at the prefix itself, which must not be empty then.
    """
    router = APIRouter(tags=["health"])
    fails: dict[int | str, dict[str, Any]] = {503: {"description": "fail", "content": {_MEDIA_TYPE: {}}}}

    @router.get("/live", response_model=Health)
    async def _live() -> Response:
        return _answer(live())

    @router.get("/ready", response_model=Health, responses=fails, openapi_extra={"parameters": [_FOR]})
    async def _ready(request: Request) -> Response:
        return _answer(ready(db, _purpose(request), drain))

    @router.get("/nodes", response_model=Nodes, responses=fails)
    async def _nodes() -> Response:
        return _answer(nodes(db))

    @router.get("/pools", response_model=PoolsHealth, responses=fails)
    async def _pools() -> Response:
        return _answer(pools(db))

    if drain is not None and drain.post:
        router.add_api_route("/drain", _beginning(drain), methods=["POST"], status_code=202, response_model=Health)
    if page:
        add_page(router, db, drain)
    for route in [*router.routes]:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):  # some load balancers ask by HEAD
            router.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
    return router


def _purpose(request: Request) -> Literal["reads", "writes"] | None:
    # Read by hand: as a parameter FastAPI takes three times as long to solve it as the answer takes.
    match request.query_params.get("for"):
        case None:
            return None
        case "reads":
            return "reads"
        case "writes":
            return "writes"
        case _:  # a typing error in a probe must not look like health
            raise HTTPException(422, "for: reads or writes")


def _beginning(drain: ProcessDrain) -> Callable[[Request], Awaitable[Response]]:
    async def _drain(request: Request) -> Response:
        # A page anywhere on the web can have a browser inside the network send a POST. Browsers name the page's origin.
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            raise HTTPException(403, "not from a browser")
        drain.begin()
        return _answer(Health(status="fail", notes=["draining"]), 202)

    return _drain


def _answer(health: Health | Nodes | PoolsHealth, status: int | None = None) -> Response:
    return Response(
        health.model_dump_json(),
        status_code=status or (503 if health.status == "fail" else 200),
        media_type=_MEDIA_TYPE,
        headers={"Cache-Control": "no-store"},
    )
