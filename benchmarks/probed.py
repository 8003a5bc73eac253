"""An application that a load balancer asks how it is, in a process of its own: `python -m benchmarks.probed`."""

import asyncio
import gc
import socket
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.peer import answer
from lagwise import Policy, Router
from lagwise.fastapi import health_router, lifespan
from lagwise.health import ProcessDrain
from lagwise.testing import wait_until

POOL: dict[str, Any] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.5}
CROWD = 20  # sessions that wait for a connection of the exhausted pools, at any time
SELECT = text("SELECT 1")


class Application:
    """One application behind uvicorn, whose pools can be exhausted."""

    def __init__(self, primary: str, replicas: dict[str, str]) -> None:
        self.db = Router(primary, replicas, policy=Policy(probe_interval=0.25, probe_timeout=0.25), **POOL)
        self.drain = ProcessDrain()
        self.app = FastAPI(lifespan=lifespan(self.db))
        self.app.include_router(health_router(self.db, drain=self.drain), prefix="/health")
        self.held = AsyncExitStack()
        self.crowd: list[asyncio.Task[None]] = []

    async def exhaust(self) -> None:
        """Take every connection for good, from tasks of their own, and let a crowd wait for more."""
        names = [node.name for node in self.db.view.nodes if node.name != "primary"]
        taken: list[asyncio.Future[None]] = []

        async def hold(*, write: bool) -> None:
            with suppress(SQLAlchemyError, asyncio.CancelledError):
                async with self.db.write() if write else self.db.read(snapshot=True) as session:
                    await session.execute(SELECT)
                    taken.pop().set_result(None)
                    await asyncio.Event().wait()

        async def held(*, write: bool) -> None:
            for _ in range(POOL["pool_size"]):
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                taken.append(future)
                self.crowd.append(asyncio.create_task(hold(write=write)))
                await future

        await held(write=True)
        for name in names:
            for other in names:
                (self.db.undrain if other == name else self.db.drain)(other)
            await held(write=False)
        for name in names:
            self.db.undrain(name)
        self.crowd += [asyncio.create_task(self._wait(number)) for number in range(CROWD)]

    async def _wait(self, number: int) -> None:
        write = number % 2 == 0
        await asyncio.sleep(POOL["pool_timeout"] * number / CROWD)  # clients do not come, and give up, all at once
        while True:
            with suppress(SQLAlchemyError):
                async with self.db.write() if write else self.db.read() as session:
                    await session.execute(SELECT)
            await asyncio.sleep(0)

    async def leave(self) -> None:
        """End the crowd."""
        for task in self.crowd:
            task.cancel()
        await asyncio.gather(*self.crowd, return_exceptions=True)


async def main() -> None:
    """Serve until standard input closes. The first line has the URLs; others change the state of things."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        application: Application | None = None
        server: uvicorn.Server | None = None
        serving: asyncio.Task[None] | None = None

        async def handle(
            primary: str = "", replicas: dict[str, str] | None = None, *, exhaust: bool = False, drain: bool = False
        ) -> dict[str, Any]:
            nonlocal application, server, serving
            if application is None:
                application = Application(primary, replicas or {})
                config = uvicorn.Config(application.app, log_level="error", access_log=False, timeout_keep_alive=3600)
                server = uvicorn.Server(config)
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                started = server
                await wait_until(lambda: started.started, what="uvicorn")
                gc.collect()
                gc.freeze()  # as docs/performance.md has it
            if exhaust:
                await application.exhaust()
            if drain:
                application.drain.begin()
            counters = [each for pools in application.db.pools.values() for each in pools.tallies.values()]
            return {
                "port": port,
                "cpu": time.process_time(),
                "timeouts": sum(each.timeouts for each in counters),
                "rotation": len(application.db.view.rotation),
            }

        await answer(handle)
        if application is not None and server is not None and serving is not None:
            await application.leave()
            server.should_exit = server.force_exit = True
            await serving


if __name__ == "__main__":
    asyncio.run(main())
