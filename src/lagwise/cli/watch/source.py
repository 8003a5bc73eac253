"""Where a snapshot comes from: an application's health, over HTTP, or a Router of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from lagwise import Router
from lagwise.cli.opening import router_of
from lagwise.health import Nodes, PoolHealth, PoolsHealth, nodes
from lagwise.health.models import NodeHealth, Routes, Status

LARGEST = 1_048_576  # bytes of an answer
TIMEOUT = 3.0  # seconds for all of an answer
_JSON = {"Accept": "application/json", "Accept-Encoding": "identity"}  # what is compressed has no bound

_Answer = TypeVar("_Answer", Nodes, PoolsHealth)


class Snapshot(BaseModel):
    """What is known at one moment. Applications without the status page tell no more than nodes and pools."""

    status: Status
    summary: str = ""
    notes: list[str] = Field(default_factory=list)
    nodes: dict[str, NodeHealth]
    pools: dict[str, dict[str, PoolHealth]] = Field(default_factory=dict)
    routes: Routes | None = None


class Unanswered(Exception):  # noqa: N818 - the event
    """There is no snapshot; the message says why, and holds no address."""


class Direct:
    """The nodes themselves, as a Router of this process reads them."""

    def __init__(self, db: Router) -> None:
        self._db = db

    async def snapshot(self) -> Snapshot:
        """What the Router knows now."""
        found = nodes(self._db)
        return Snapshot(status=found.status, nodes=found.nodes)


class Application:
    """A running application's health router."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._page = True
        """Whether the status page may be at the prefix itself."""

    async def snapshot(self) -> Snapshot:
        """What the application says now. Raises `Unanswered`."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._whole() or await self._parts()
        except TimeoutError:
            raise Unanswered(f"no answer within {TIMEOUT:g} s") from None
        except httpx.HTTPError as error:
            raise Unanswered(f"no answer ({type(error).__name__})") from None
        except ValidationError:
            raise Unanswered("the answer is not understood: is this the URL of its health, of this version?") from None

    async def _whole(self) -> Snapshot | None:
        if not self._page:
            return None
        status, body = await self._get(self._url)
        if status in {200, 503}:
            try:
                return Snapshot.model_validate_json(body)
            except ValidationError:
                pass  # something else is there
        self._page = status not in {200, 404, 405}  # any other failure may pass
        return None

    async def _parts(self) -> Snapshot:
        known = await self._json(f"{self._url}/nodes", Nodes)
        usage = await self._json(f"{self._url}/pools", PoolsHealth)
        return Snapshot(status=known.status, nodes=known.nodes, pools=usage.pools)

    async def _json(self, url: str, kind: type[_Answer]) -> _Answer:
        status, body = await self._get(url)
        if status not in {200, 503}:
            raise Unanswered(f"status {status}: is this the URL of its health?")
        return kind.model_validate_json(body)

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self._client.stream("GET", url, headers=_JSON) as answer:
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > LARGEST:
                    raise Unanswered(f"the answer is above {LARGEST} bytes")
            return answer.status_code, bytes(body)


@asynccontextmanager
async def source(urls: Sequence[str]) -> AsyncIterator[Direct | Application]:
    """The application at this URL, or the nodes at these, or those of the environment.

    Raises:
        ValueError: a URL or a setting makes no sense.
    """
    if urls and urls[0].lower().startswith(("http://", "https://")):
        if len(urls) > 1:
            raise ValueError("give one application's URL, or URLs of nodes")
        try:
            port = httpx.URL(urls[0]).port
        except httpx.InvalidURL:
            port = 0
        if port is not None and not 0 < port < 65_536:
            raise ValueError("this is no URL: write http://host:port/health")
        # Its own address is asked, whatever proxy the environment names.
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client:
            yield Application(client, urls[0])
        return
    if urls and "://" not in urls[0]:
        raise ValueError(
            "URL number 1 is no database URL: write postgresql+asyncpg://..., or name=URL; "
            "or http://... for the health URL of an application"
        )
    async with router_of(urls) as db:
        yield Direct(db)
