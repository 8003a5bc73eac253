"""Health over HTTP."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from lagwise.health.answers import live, nodes, pools, ready
from lagwise.health.models import Health, Nodes, PoolsHealth
from lagwise.router import Router

_MEDIA_TYPE = "application/health+json"


def health_router(db: Router) -> APIRouter:
    """`/live`, `/ready` (`?for=reads|writes`), `/nodes` and `/pools`; mount it with a prefix.

    200 for pass and warn, 503 for fail, as `application/health+json`. Nothing is asked of any database.
    """
    router = APIRouter(tags=["health"])
    fails: dict[int | str, dict[str, Any]] = {503: {"description": "fail", "content": {_MEDIA_TYPE: {}}}}

    @router.get("/live", response_model=Health)
    async def _live() -> Response:
        return _answer(live())

    @router.get("/ready", response_model=Health, responses=fails)
    async def _ready(
        purpose: Annotated[Literal["reads", "writes"] | None, Query(alias="for")] = None,
    ) -> Response:
        return _answer(ready(db, purpose))

    @router.get("/nodes", response_model=Nodes, responses=fails)
    async def _nodes() -> Response:
        return _answer(nodes(db))

    @router.get("/pools", response_model=PoolsHealth, responses=fails)
    async def _pools() -> Response:
        return _answer(pools(db))

    return router


def _answer(health: Health | Nodes | PoolsHealth) -> Response:
    return Response(
        health.model_dump_json(),
        status_code=503 if health.status == "fail" else 200,
        media_type=_MEDIA_TYPE,
        headers={"Cache-Control": "no-store"},
    )
