"""The load, from a process of its own: keep-alive connections, each a client with a cookie jar of its own.

Run as `python -m benchmarks.load`. Plain sockets and one selector: what measures must cost less than what is measured.
"""

import asyncio
import random
import re
import selectors
import socket
import time
from dataclasses import dataclass, field

from benchmarks.peer import answer

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\nset-cookie: *([^=]+)=([^;\r]*)(?:[^\r]*?max-age=(\d+))?", re.IGNORECASE)
_PATIENCE = 30.0  # seconds without any answer at all


@dataclass(slots=True)
class Jar:
    """The cookies of one client, which end when they said they would."""

    cookies: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    header: bytes = b""
    _ends: float = float("inf")

    def heard(self, head: bytes) -> None:
        """Keep, or drop, what an answer sets."""
        for name, value, age in _COOKIE.findall(head):
            if age and int(age) == 0:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = (value, time.monotonic() + int(age) if age else float("inf"))
        self._write()

    def sent(self) -> bytes:
        """The header line of the next request."""
        if self._ends < time.monotonic():
            now = time.monotonic()
            self.cookies = {name: kept for name, kept in self.cookies.items() if kept[1] > now}
            self._write()
        return self.header

    def _write(self) -> None:
        pairs = b"; ".join(name + b"=" + value for name, (value, _) in self.cookies.items())
        self.header = b"Cookie: " + pairs + b"\r\n" if pairs else b""
        self._ends = min((ends for _, ends in self.cookies.values()), default=float("inf"))


class Client:
    """One connection: one request at a time."""

    def __init__(self, port: int, number: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.jar = Jar()
        self.random = random.Random(number)
        self.buffer = b""
        self.started = 0.0

    def send(self, writes: float) -> None:
        """Read the row, or with this probability write one."""
        line = b"POST /items" if self.random.random() < writes else b"GET /items/1"
        length = b"Content-Length: 0\r\n" if line.startswith(b"POST") else b""
        self.started = time.perf_counter()
        self.sock.send(line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + length + self.jar.sent() + b"\r\n")

    def received(self) -> int:
        """The status of the answer, if it is complete by now; else 0."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return 0
        found = _LENGTH.search(head)
        if found is None:
            raise ConnectionError("an answer without its length")
        if len(body) < int(found[1]):
            return 0
        self.buffer = b""
        if b"set-cookie" in head:
            self.jar.heard(head)
        return int(head[9:12])


@dataclass(slots=True)
class Load:
    """All clients of one server."""

    clients: list[Client]
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        for client in self.clients:
            self.selector.register(client.sock, selectors.EVENT_READ, client)

    def drive(self, seconds: float, writes: float) -> dict[str, float]:
        """Each client asks again as soon as it has its answer, for so many seconds."""
        times: list[float] = []
        failed, waiting = 0, len(self.clients)
        began = time.perf_counter()
        until = began + seconds
        for client in self.clients:
            client.send(writes)
        while waiting:
            ready = self.selector.select(_PATIENCE)
            if not ready:
                raise TimeoutError("no answer from a server")
            for key, _ in ready:
                client = key.data
                if not (status := client.received()):
                    continue
                now = time.perf_counter()
                times.append(now - client.started)
                failed += not 200 <= status < 300
                if now < until:
                    client.send(writes)
                else:
                    waiting -= 1
        elapsed = time.perf_counter() - began
        times.sort()
        return {
            "requests": len(times),
            "per_second": len(times) / elapsed,
            "p50": times[len(times) // 2] * 1000,
            "p99": times[len(times) * 99 // 100] * 1000,
            "failed": failed,
        }


async def main() -> None:
    loads: dict[int, Load] = {}

    def handle(port: int, clients: int, seconds: float, writes: float) -> dict[str, float]:
        if port not in loads:
            loads[port] = Load([Client(port, number) for number in range(clients)])
        return loads[port].drive(seconds, writes)

    await answer(handle)


if __name__ == "__main__":
    asyncio.run(main())
