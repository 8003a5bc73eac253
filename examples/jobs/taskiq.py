"""taskiq: a middleware puts the sender's token into the labels of a task, and the task reads behind it."""

from contextvars import ContextVar
from typing import Any

from sqlalchemy import text
from taskiq import InMemoryBroker, TaskiqEvents, TaskiqMessage, TaskiqMiddleware, TaskiqResult, TaskiqState

from lagwise import Causality, Router

LABEL = "lagwise"
# A job has time: it waits a second for a replica before it reads from the primary.
db = Router.from_env(catch_up=1.0)
entered: ContextVar[Causality] = ContextVar("entered")


class Causal(TaskiqMiddleware):
    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        if (seen := Causality.current()) is not None:  # a request's, a script's, or that of a task which sends another
            message.labels[LABEL] = str(seen.token)
        return message

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        entered.set(Causality(message.labels.get(LABEL)).__enter__())  # of this task alone
        return message

    async def post_execute(self, message: TaskiqMessage, result: "TaskiqResult[Any]") -> None:
        entered.get().__exit__(None, None, None)


broker = InMemoryBroker().with_middlewares(Causal())  # in production a broker of taskiq-redis, taskiq-aio-pika, ...


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(_: TaskiqState) -> None:
    await db.__aenter__()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(_: TaskiqState) -> None:
    await db.__aexit__(None, None, None)


@broker.task
async def count(name: str) -> tuple[int, str]:
    async with db.read() as session:
        found = await session.scalar(text("SELECT count(*) FROM item WHERE name = :name"), {"name": name})
        return found or 0, str(session.info["lagwise.route"].reason)
