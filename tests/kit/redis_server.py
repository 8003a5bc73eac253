"""A Redis of the test's own: started and stopped, paused, filled and restarted while an application uses it."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lagwise.testing import wait_until


class RedisServer:
    """One redis-server on a port of its own, with nothing on disk unless a folder is asked for."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        self._process = await asyncio.create_subprocess_exec(
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self._folder), *self._options,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await wait_until(self._answers, what="redis-server")

    async def stop(self) -> None:
        """Stop it at once, as a crash does."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, with everything that was sent to it meanwhile."""
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(which)

    async def ask(self, *words: Any) -> Any:
        """The answer to one command."""
        async with Redis.from_url(self.url, decode_responses=True) as redis:
            return await redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def age(self, prefix: str = "lagwise", seconds: float = 3600) -> None:
        """Let it have been there for an hour, with everything that it was told."""
        key = f"{{{prefix}}}:run"
        await wait_until(lambda: self._knows(key), what="a process has joined")
        since = int(await self.ask("HGET", key, "since"))
        await self.ask("HSET", key, "since", since - int(seconds * 1000))

    async def _knows(self, key: str) -> bool:
        return bool(await self.ask("EXISTS", key))

    async def _answers(self) -> bool:
        try:
            return bool(await self.ask("PING"))
        except (OSError, RedisError):
            return False


@asynccontextmanager
async def redis_server(folder: Path, *options: str) -> AsyncIterator[RedisServer]:
    """A server that runs; ended afterwards, whatever state it is in."""
    server = RedisServer(folder, *options)
    await server.start()
    try:
        yield server
    finally:
        server.thaw()
        await server.stop()
