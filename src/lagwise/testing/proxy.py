"""A TCP proxy before one server: it counts round trips at the wire, and breaks the network on demand."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from lagwise.testing.backend import Address
from lagwise.testing.link import Link
from lagwise.testing.ports import bound
from lagwise.testing.wire import Wire


class Proxy(Wire):
    """Listens on a loopback port and passes everything on to ``target``, until told not to.

    The verbs act at once and need no ``await``; ``heal()`` undoes all of them.

    Attributes:
        target: Where it connects to; a change holds from the next connection on.
        latency: Seconds each message from the client is held back.
        round_trips: ReadyForQuery messages seen after start-up: what the client had to wait for.
        connections: Connections that finished start-up.
        by_application: ``round_trips`` by the client's ``application_name`` (``""`` without one).
    """

    def __init__(self, target: Address, *, host: str = "127.0.0.1", counting: bool = True) -> None:
        super().__init__(counting=counting)
        self.target = target
        self._host = host
        self._port = 0
        self._sock: socket.socket | None = None
        self._listening = False
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Listen on a free port. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._sock = bound(self._host)
        self._port = int(self._sock.getsockname()[1])
        self._listen()

    async def close(self) -> None:
        """Stop listening and drop every connection; no task and no socket is left. Safe to call twice."""
        self._stop_listening()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        tasks = list(self._links.values())
        self.reset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports tell their protocols about abort() in the next turn of the loop

    @property
    def address(self) -> Address:
        """The address the proxy listens at; stays the same for its whole life."""
        return Address(self._host, self._port)

    @property
    def passing(self) -> bool:
        """Whether a client gets through: it listens, and nothing is frozen or swallowed."""
        return self._listening and not self.frozen and not self.swallowing

    @property
    def open_connections(self) -> int:
        """Client connections open right now."""
        return len(self._links)

    def freeze(self) -> None:
        """Hold everything back, both ways; sockets stay open. ``heal()`` delivers it, as TCP would."""
        self.frozen = True
        self._thawed.clear()
        for link in self._links:
            link.hold()

    def black_hole(self) -> None:
        """Swallow every byte; sockets stay open. ``heal()`` resets the connections that lost any."""
        self.swallowing = True
        self._thawed.clear()

    def reset(self) -> None:
        """Reset (TCP RST) every open connection; new ones are accepted."""
        for link, task in list(self._links.items()):
            task.cancel()
            link.abort()

    def refuse(self) -> None:
        """Refuse new connections; open ones go on. The port stays bound, so that no other server can answer on it."""
        if not self._listening:
            return
        self._stop_listening()
        if self._sock is not None:
            self._sock.close()
        self._sock = bound(self._host, self._port)

    def cut(self) -> None:
        """Refuse new connections and reset the open ones: the server is gone."""
        self.refuse()
        self.reset()

    def heal(self) -> None:
        """Pass everything on again."""
        self.frozen = self.swallowing = False
        for link, task in list(self._links.items()):
            if link.lossy:
                task.cancel()
                link.abort()
            else:
                link.release()
        self._thawed.set()
        if self._sock is not None and not self._listening:
            self._listen()

    def _listen(self) -> None:
        assert self._sock is not None
        self._sock.listen(512)
        self._loop.add_reader(self._sock, self._accept)
        self._listening = True

    def _stop_listening(self) -> None:
        if self._listening and self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._listening = False

    def _accept(self) -> None:
        assert self._sock is not None
        while True:
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            sock.setblocking(False)
            link = Link(self)
            task = self._links[link] = self._loop.create_task(self._serve(link, sock))
            # Not in the task itself: one that is cancelled before its first step runs no `finally`.
            task.add_done_callback(partial(self._served, link, sock))

    async def _serve(self, link: Link, sock: socket.socket) -> None:
        with suppress(OSError):  # the server is down, or the client left: the client sees a reset
            await self._loop.connect_accepted_socket(lambda: link.client, sock)
            await self._thawed.wait()
            await self._loop.create_connection(lambda: link.server, *self.target)
            link.release()
            await link.closed.wait()

    def _served(self, link: Link, sock: socket.socket, _task: asyncio.Task[None]) -> None:
        link.abort()
        if link.client.transport is None:
            sock.close()
        del self._links[link]
