"""Clients that record what they do, Routers for them, and replicas that stand still."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality, Policy, Router, RoutingError
from lagwise._decide.token import CausalToken
from lagwise.testing import Cluster, wait_until
from lagwise.testing.history import Operation, Recorder, Version

from .application import get, put

Meanwhile = Callable[[], Awaitable[None]]
Get = Callable[[AsyncSession, str], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def routed(cluster: Cluster, **policy: Any) -> AsyncIterator[Router]:
    """An open Router on the whole cluster, with a patient policy unless said; every replica is in rotation."""
    settings = {"max_lag": 60.0, "sticky_window": 60.0, "probe_interval": 0.05, **policy}
    urls = {name: node.url for name, node in cluster.nodes.items()}
    # A connection class of its own: COMMIT does not say where it stands, so that positions are asked for.
    asking: dict[str, Any] = {"connection_class": asyncpg.Connection}
    async with Router(urls.pop("primary"), urls, policy=Policy(**settings), connect_args=asking) as db:
        yield db


async def pause(cluster: Cluster) -> None:
    """Every replica stands still from here on."""
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)


async def resume(cluster: Cluster) -> None:
    """Every replica goes on."""
    for replica in cluster.replicas:
        await cluster.resume_replay(replica)


async def paused_at_the_primarys_position(cluster: Cluster, db: Router) -> None:
    """Let every replica stand still with all that the primary has written, and the Router know it.

    Servers write to their log unasked, also between catching up and pausing: then once more.
    """
    for _ in range(5):
        await cluster.caught_up()
        await pause(cluster)
        with suppress(TimeoutError):
            return await seen_at_the_primarys_position(db, timeout=2.0)
        await resume(cluster)
    raise AssertionError("the primary's log never stood still for long enough")


async def seen_at_the_primarys_position(db: Router, timeout: float = 10.0) -> None:
    """Wait until the Router knows that the replicas have all that the primary had written by now."""
    now = asyncio.get_running_loop().time()

    def so() -> bool:
        primary = db.view.primary
        readings = [node.reading for node in db.view.rotation]
        if primary is None or primary.reading is None or primary.reading.at < now or len(readings) < 2:
            return False
        return all(reading is not None and reading.lsn >= primary.reading.lsn for reading in readings)

    await wait_until(so, timeout=timeout, what="the Router sees its replicas where the primary is")


@dataclass
class Client:
    """A client outside HTTP: keeps its token, and records every operation."""

    name: str
    recorder: Recorder
    token: CausalToken = field(default_factory=CausalToken)

    async def write(self, db: Router, key: str, meanwhile: Meanwhile | None = None) -> Operation:
        """Write a value of its own; `meanwhile` happens between the statement and its COMMIT."""
        value, start = f"{self.name}-{uuid4().hex[:8]}", self.recorder.now()
        said: dict[str, Any] = {}
        with Causality(self.token) as seen:
            async with db.write.begin() as session:
                said = await put(session, key, value)
                if meanwhile is not None:
                    await meanwhile()
        self.token = seen.token
        return self._done("write", key, start, said)

    async def read(self, db: Router, key: str) -> Operation:
        """Read what is there, or record the named error."""
        with Causality(self.token) as seen:
            async with db.read() as session:
                done = await self.read_in(session, key)
        self.token = seen.token
        return done

    async def read_in(self, session: AsyncSession, key: str, get: Get = get) -> Operation:
        """Likewise, in a session that is open already."""
        start, said, error = self.recorder.now(), dict[str, Any](), None
        try:
            said = await get(session, key)
        except RoutingError as refused:
            error = type(refused).__name__
        return self._done("read", key, start, said, error)

    def _done(self, kind: Any, key: str, start: float, said: dict[str, Any], error: str | None = None) -> Operation:
        number = said.get("number")
        done = Operation(
            client=self.name,
            kind=kind,
            key=key,
            value=said.get("value"),
            version=Version(said["timeline"], number) if number is not None else None,
            start=start,
            end=self.recorder.now(),
            node=said.get("node"),
            outcome="failed" if error else "ok",
            error=error,
        )
        self.recorder.operations.append(done)
        return done
