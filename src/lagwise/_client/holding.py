"""A response that waits for the COMMIT of its own request: start and body are held back, for a limited time."""

import asyncio
import logging
from collections.abc import Callable

from lagwise._client.answer import Answer
from lagwise._client.causality import Causality
from lagwise._client.http import Message, Send
from lagwise._say import say

_MOST_KEPT = 256 * 1024  # bytes of body; an application that sends more waits until the response has left
_KEPT = frozenset({"http.response.start", "http.response.body", "http.response.trailers"})
_ROUTES_WARNED = 256
_warned: set[str] = set()


class Hold:
    """Keeps the messages of one response, until `leave` or until the moment is over. Nothing is sent twice.

    Args:
        send: where the messages go.
        moment: seconds from the start of the response until it is sent all the same.
        route: what the warning calls the endpoint.
        prepare: adds the token to the start, as late as possible.
    """

    def __init__(
        self,
        send: Send,
        seen: Causality,
        answer: Answer,
        *,
        moment: float,
        route: str,
        prepare: Callable[[Message], None],
    ) -> None:
        self._send = send
        self._seen = seen
        self._answer = answer
        answer.prepare()
        self._route = route
        self._prepare = prepare
        self._kept: list[Message] = []
        self._size = 0
        self._sized = False
        self._over = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(moment, self._start_leaving)

    async def pass_on(self, message: Message) -> None:
        """Keep a message of the application, or send it when the response has left.

        A body without a length that comes in pieces is a stream: its COMMIT may come when it ends, so it leaves now.
        A body that the server is to take from elsewhere may be gone when the application returns: a temporary file.
        """
        if self._leaving is None and message["type"] not in _KEPT:
            self._start_leaving()
        if self._leaving is None:
            if message["type"] == "http.response.start":
                message["headers"] = headers = list(message.get("headers", ()))  # any iterable, also one that ends
                self._sized = any(name.lower() == b"content-length" for name, _ in headers)
            self._kept.append(message)
            self._size += len(message.get("body", b""))
            if not message.get("more_body") or (self._sized and self._size <= _MOST_KEPT):
                return
            if not self._sized:
                self._start_leaving()
            await self._over.wait()
            if self._leaving is not None:
                await asyncio.shield(self._leaving)
            return
        await asyncio.shield(self._leaving)
        await self._send(message)

    async def leave(self) -> None:
        """Send what was kept: the application has returned."""
        self._start_leaving()
        assert self._leaving is not None
        await self._leaving

    def drop(self) -> bool:
        """Discard what was kept: the application has raised. False when it was sent already."""
        if self._leaving is not None:
            return False
        self._end()
        self._kept.clear()
        return True

    def abandon(self) -> None:
        """Send nothing more: the request was cancelled."""
        if not self.drop() and self._leaving is not None:
            self._leaving.cancel()

    def _start_leaving(self) -> None:
        if not self._over.is_set():
            self._leaving = asyncio.ensure_future(self._leave())
            self._end()

    def _end(self) -> None:
        self._timer.cancel()
        self._over.set()

    async def _leave(self) -> None:
        if self._seen.writing:
            # The client gets its answer before the COMMIT, and may read before the write is committed.
            self._seen.doubt()
            _warn(self._route)
        kept, self._kept = self._kept, []
        if self._answer.refused:
            # COMMIT was refused, and code in between has swallowed the error: the prepared answer would be false.
            kept = failure()
        self._prepare(kept[0])
        for message in kept:
            await self._send(message)


def failure() -> list[Message]:
    """The messages of a 500."""
    body = b"Internal Server Error"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    return [
        {"type": "http.response.start", "status": 500, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]


def _warn(route: str) -> None:
    if route in _warned or len(_warned) >= _ROUTES_WARNED:
        return
    _warned.add(route)
    say(
        logging.WARNING,
        "answered-before-commit",
        route=route,
        reason="the session of a dependency was still open when the answer had to leave",
        remedy='give the dependency scope="function", or use WriteSession, so that COMMIT precedes the response',
    )
