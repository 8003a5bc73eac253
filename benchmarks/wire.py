"""The proxies, in a process of their own: they count round trips and delay them, at no cost to what is measured.

Run as `python -m benchmarks.wire`, by `wired`.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from benchmarks.application import Servers, address, at
from benchmarks.peer import Peer, answer, module
from lagwise.testing.backend import Address
from lagwise.testing.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Wire:
    """The way to the servers through the proxies."""

    servers: Servers
    peer: Peer

    async def trips(self) -> int:
        """Round trips so far, of all clients."""
        return int(await self.peer.ask())

    async def delay(self, seconds: float) -> None:
        """Hold back each message from a client for so long."""
        await self.peer.ask(latency=seconds)


@asynccontextmanager
async def wired(direct: Servers) -> AsyncIterator[Wire]:
    """Proxies before both servers."""
    async with module("wire") as started:
        ports = await started.ask(targets=[address(direct.primary), address(direct.replica)])
        yield Wire(Servers(at(direct.primary, ports[0]), at(direct.replica, ports[1])), started)


async def main() -> None:
    async with AsyncExitStack() as stack:
        proxies: list[Proxy] = []

        async def handle(targets: list[tuple[str, int]] | None = None, latency: float | None = None) -> int | list[int]:
            for host, port in targets or ():
                proxies.append(await stack.enter_async_context(Proxy(Address(host, port))))
            if latency is not None:
                for proxy in proxies:
                    proxy.latency = latency
            if targets is not None:
                return [proxy.address.port for proxy in proxies]
            return sum(proxy.round_trips for proxy in proxies)

        await answer(handle)


def _precise() -> asyncio.AbstractEventLoop:
    # epoll and poll count in milliseconds, rounded up; a delay of half a one would be a whole one.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_precise) as runner:
        runner.run(main())
