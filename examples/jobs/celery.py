"""Celery: headers carry the token. `celery -A examples.jobs.celery worker`, with the pools `prefork` and `solo`."""

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from typing import Any

from celery import Celery, signals
from sqlalchemy import text

from lagwise import Causality, Router

app = Celery("jobs", broker=os.environ.get("CELERY_BROKER", "memory://"), backend="cache+memory://")
# A job has time: it waits a second for a replica before it reads from the primary.
db = Router.from_env(catch_up=1.0)
entered: list[Causality] = []  # a process runs one task at a time


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    """Of this process. It runs in a thread: between tasks, too, the Router watches the replicas."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, daemon=True).start()
    return made


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, loop()).result()  # with the causality of the task that calls


signals.worker_process_init.connect(lambda **_: run(db.__aenter__()), weak=False)
signals.worker_process_shutdown.connect(lambda **_: run(db.__aexit__(None, None, None)), weak=False)


@signals.before_task_publish.connect
def send(headers: dict[str, Any], **_: Any) -> None:
    headers["lagwise"] = str(seen.token) if (seen := Causality.current()) else None


@signals.task_prerun.connect
def enter(task: Any, **_: Any) -> None:
    entered.append(Causality(task.request.get("lagwise")).__enter__())


@signals.task_postrun.connect
def leave(**_: Any) -> None:
    entered.pop().__exit__(None, None, None)


@app.task
def count(name: str) -> tuple[int, str]:
    async def counted() -> tuple[int, str]:
        async with db.read() as session:
            found = await session.scalar(text("SELECT count(*) FROM item WHERE name = :name"), {"name": name})
            return found or 0, str(session.info["lagwise.route"].reason)

    return run(counted())
