"""The example application, unchanged, in an envelope: each answer says which process gave it."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from examples.app import app as example

Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The example's answer, with the header `process`."""

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"process", str(os.getpid()).encode())]
        await send(message)

    await example(scope, receive, telling)
