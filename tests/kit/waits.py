"""How often a client waits for its server, counted on the wire: also for an answer that ReadyForQuery does not end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Waits:
    """A relay before one server. `count` grows when the server answers what the client has sent since its last answer.

    Only what comes in pieces is counted twice: answers of a few rows do not.
    """

    def __init__(self) -> None:
        self.count = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Relay one connection."""
        upstream, up = await asyncio.open_connection("127.0.0.1", port)
        asked = False

        async def forth() -> None:
            nonlocal asked
            while data := await reader.read(1 << 16):
                asked = True
                up.write(data)

        async def back() -> None:
            nonlocal asked
            while data := await upstream.read(1 << 16):
                self.count, asked = self.count + asked, False
                writer.write(data)

        tasks = [asyncio.create_task(forth()), asyncio.create_task(back())]
        self._tasks.update(tasks)
        with suppress(ConnectionError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (writer, up):
            end.close()

    def end(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def waits(port: int) -> AsyncIterator[Waits]:
    """A relay to this port of this machine, at `waits.port`."""
    relay = Waits()
    server = await asyncio.start_server(lambda reader, writer: relay.serve(reader, writer, port), "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        relay.end()
        server.close()
