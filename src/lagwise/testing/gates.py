"""Gates: wait until a condition holds, instead of sleeping for a fixed time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")


@overload
async def wait_until(
    predicate: Callable[[], Awaitable[T]],
    *,
    timeout: float = ...,  # noqa: ASYNC109 - see below
    what: str = ...,
    interval: float = ...,
) -> T: ...
@overload
async def wait_until(
    predicate: Callable[[], T],
    *,
    timeout: float = ...,  # noqa: ASYNC109 - see below
    what: str = ...,
    interval: float = ...,
) -> T: ...
async def wait_until(
    predicate: Callable[[], Awaitable[T]] | Callable[[], T],
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - the message must say what was waited for; asyncio.timeout cannot
    what: str = "",
    interval: float = 0.01,
) -> T:
    """Call ``predicate`` until it returns something true, and return that.

    ``timeout`` and ``interval`` are seconds. What the predicate raises goes through.

    Raises:
        TimeoutError: The predicate was not true in time; the message has ``what`` and the predicate's last answer.
    """
    what = what or getattr(predicate, "__name__", repr(predicate))
    seen: object = "nothing: the predicate did not return"
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            while True:
                answer = predicate()
                value = cast("T", await answer if inspect.isawaitable(answer) else answer)
                if value:
                    return value
                seen = value
                await asyncio.sleep(interval)
    except TimeoutError as late:
        if not limit.expired():
            raise  # the predicate's own
        message = f"waited {timeout:g} s until {what}; last seen: {seen!r}"
        raise TimeoutError(message) from late
