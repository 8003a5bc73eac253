"""Celery: a header carries the token."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("celery", reason="celery is not installed: uv sync --group integrations")

from celery.contrib.testing.worker import start_worker

from lagwise.testing import Cluster, wait_until
from tests.kit.routers import both_in_rotation, router

from .jobs import PROMISED, promises
from .loading import loaded


async def test_a_task_sees_what_its_sender_wrote(lagging: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task waits for a replica, then reads from the primary; the next one starts with nothing seen."""
    example = loaded("examples.jobs.celery", lagging, monkeypatch)
    example.app.conf.broker_transport_options = {"polling_interval": 0.02}
    worker: Any = start_worker(example.app, pool="solo", perform_ping_check=False, shutdown_timeout=20)

    async def send(name: str) -> Any:
        return await asyncio.to_thread(lambda: example.count.delay(name).get(timeout=20, interval=0.02))

    async with router(lagging) as db:  # the sender's; the worker has its own
        await asyncio.to_thread(worker.__enter__)
        try:
            await both_in_rotation(example.db)
            await both_in_rotation(db)
            assert await promises(lagging, db, send, "celery") == PROMISED
        finally:
            await asyncio.to_thread(worker.__exit__, None, None, None)
            # The pool `solo` ends with its process, and sends no signal.
            await asyncio.to_thread(example.run, example.db.__aexit__(None, None, None))
            example.loop().call_soon_threadsafe(example.loop().stop)
            await wait_until(lambda: not example.loop().is_running(), what="the worker's loop has stopped")
            example.loop().close()
