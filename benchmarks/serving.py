"""One application in one worker process, as the HTTP scenarios load it: `python -m benchmarks.serving NAME`.

The endpoints are the same for every name; only what they depend on differs.
"""

import asyncio
import gc
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.application import POOL, Item, Servers
from benchmarks.peer import answer
from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, lifespan, read_session, write_session

Maker = async_sessionmaker[AsyncSession]
ENDPOINT = "endpoint without a session"


def maker(url: str, **options: Any) -> Maker:
    return async_sessionmaker(create_async_engine(url, **POOL, **options), expire_on_commit=False)


def reads(make: Maker) -> Any:
    async def get_read_db() -> AsyncIterator[AsyncSession]:
        async with make() as session:
            yield session

    return Depends(get_read_db, scope="function")


def commits(make: Maker) -> Any:
    async def get_write_db() -> AsyncIterator[AsyncSession]:
        async with make() as session:
            yield session
            await session.commit()

    # Before the response, as lagwise does it: after it, the client is told of a commit that may yet fail.
    return Depends(get_write_db, scope="function")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What distinguishes one application from the other."""

    reads: Any
    writes: Any
    router: Router | None = None
    middleware: bool = False


def one_engine(url: str, **options: Any) -> Dependencies:
    """An application that knows one server."""
    make = maker(url, **options)
    return Dependencies(reads(make), commits(make))


def routed(servers: Servers, *, middleware: bool) -> Dependencies:
    return Dependencies(
        Depends(read_session, scope="function"),
        Depends(write_session, scope="function"),
        Router(servers.primary, {"replica-1": servers.replica}),
        middleware,
    )


CONTESTANTS: dict[str, Callable[[Servers], Dependencies | None]] = {
    ENDPOINT: lambda _: None,
    "bare AUTOCOMMIT engine": lambda s: Dependencies(
        reads(maker(s.replica, isolation_level="AUTOCOMMIT")), commits(maker(s.primary))
    ),
    "AsyncSession": lambda s: one_engine(s.primary),
    "AsyncSession, pool_pre_ping (the usual recipe)": lambda s: one_engine(s.primary, pool_pre_ping=True),
    "two hand-made makers": lambda s: Dependencies(reads(maker(s.replica)), commits(maker(s.primary))),
    "lagwise": lambda s: routed(s, middleware=True),
    "lagwise, no middleware": lambda s: routed(s, middleware=False),
}


def application(dependencies: Dependencies | None) -> FastAPI:
    """The endpoints. Without dependencies they answer the same from nothing."""
    if dependencies is None:
        return _nothing_behind()
    app = FastAPI(lifespan=lifespan(dependencies.router) if dependencies.router else None)
    if dependencies.middleware:
        app.add_middleware(CausalityMiddleware, secret="benchmark")

    @app.get("/items/{item_id}")
    async def show(item_id: int, session: Annotated[AsyncSession, dependencies.reads]) -> dict[str, int | str]:
        if item := await session.get(Item, item_id):
            return {"id": item.id, "name": item.name}
        raise HTTPException(404)

    @app.post("/items", status_code=201)
    async def create(session: Annotated[AsyncSession, dependencies.writes]) -> dict[str, int | str]:
        session.add(item := Item(name="written"))
        await session.flush()
        return {"id": item.id, "name": item.name}

    return app


def _nothing_behind() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def show(item_id: int) -> dict[str, int | str]:
        return {"id": item_id, "name": "read me"}

    @app.post("/items", status_code=201)
    async def create() -> dict[str, int | str]:
        return {"id": 1, "name": "written"}

    return app


async def main(name: str) -> None:
    """Serve until standard input closes. The first line has the URLs; each is answered with the state of things."""
    # Named TCP, or asyncio does not see that it is, leaves Nagle's algorithm on, and every answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        routers: list[Router] = []
        serving: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

        async def handle(*, freeze: bool = False, **servers: str) -> dict[str, float]:
            if freeze:
                gc.collect()
                gc.freeze()
            if servers:
                dependencies = CONTESTANTS[name](Servers(**servers))
                if dependencies is not None and dependencies.router is not None:
                    routers.append(dependencies.router)
                app = application(dependencies)
                # Turns are far apart: a connection that waits for its next one stays open.
                config = uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=3600)
                server = uvicorn.Server(config)
                serving.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
                while not server.started:
                    if serving[0][1].done():
                        await serving[0][1]
                        raise RuntimeError(f"{name} did not start")
                    await asyncio.sleep(0.01)
            to_primary = sum(router.pools["primary"].tallies["writing"].opened for router in routers)
            return {"port": port, "cpu": time.process_time(), "to_primary": to_primary}

        await answer(handle)
        for server, task in serving:
            server.should_exit = server.force_exit = True
            await task


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
