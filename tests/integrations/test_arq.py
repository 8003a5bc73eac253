"""arq: a keyword carries the token."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("arq", reason="arq is not installed; it refuses redis-py 6: see CONTRIBUTING.md")

from arq.connections import RedisSettings, create_pool
from arq.worker import create_worker

from lagwise.testing import Cluster, wait_until
from tests.kit.routers import both_in_rotation

from .jobs import PROMISED, promises
from .loading import loaded


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisSettings]:
    """A Redis of its own, on a socket in a directory, without persistence."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: bash .ci/install")
    path = tmp_path / "redis"
    process = await asyncio.create_subprocess_exec(
        *(program, "--port", "0", "--unixsocket", path, "--save", ""), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await wait_until(path.exists, what="redis-server listens")
        yield RedisSettings(unix_socket_path=str(path))
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's own
async def test_a_job_sees_what_its_sender_wrote(
    lagging: Cluster, monkeypatch: pytest.MonkeyPatch, redis: RedisSettings
) -> None:
    """A job waits for a replica, then reads from the primary; the next one starts with nothing seen."""
    example = loaded("examples.jobs.arq", lagging, monkeypatch)
    pool = await create_pool(redis)
    worker = create_worker(
        example.WorkerSettings, redis_settings=None, redis_pool=pool, handle_signals=False, poll_delay=0.02
    )
    working = asyncio.create_task(worker.async_run())

    async def send(name: str) -> tuple[int, str]:
        job = await example.enqueue(pool, "count", name)
        answer: tuple[int, str] = await job.result(timeout=20, poll_delay=0.02)
        return answer

    try:
        await send("arq, to see that the worker is there")
        await both_in_rotation(example.db)
        assert await promises(lagging, example.db, send, "arq") == PROMISED
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await worker.close()
