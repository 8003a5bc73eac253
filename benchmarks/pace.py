"""A steady load, from a process of its own: so many requests per second, whether the answers come or not.

Run as `python -m benchmarks.pace`. Each time is from the moment when a request was due until its answer: what waits
because the server is late counts, and is not left out as by clients that wait for one answer before they ask again.
"""

import asyncio
import re
import selectors
import socket
import time
from collections import deque

from benchmarks.peer import answer

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PATIENCE = 10.0  # seconds without any answer at all


class Connection:
    """One keep-alive connection: one request at a time."""

    def __init__(self, port: int, path: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self.buffer = b""
        self.due = 0.0

    def send(self, due: float) -> None:
        """Ask; the time counts from `due`."""
        self.due = due
        self.sock.send(self.request)

    def status(self) -> int:
        """The status of the answer, if it is complete by now; else 0."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        found = _LENGTH.search(head) if end else None
        if found is None or len(body) < int(found[1]):
            return 0
        self.buffer = b""
        return int(head[9:12])


def drive(port: int, path: str, per_second: float, seconds: float, connections: int) -> dict[str, float]:
    """Ask at this rate; percentiles of the times in milliseconds, and the status that all answers had, else 0."""
    # Unlike epoll, select does not round its time-outs up to milliseconds.
    selector = selectors.SelectSelector()
    idle = deque(Connection(port, path) for _ in range(connections))
    for each in idle:
        selector.register(each.sock, selectors.EVENT_READ, each)
    times: list[float] = []
    statuses: set[int] = set()
    count, sent = int(per_second * seconds), 0
    began = time.perf_counter()
    while len(times) < count:
        now = time.perf_counter()
        while sent < count and idle and began + sent / per_second <= now:
            idle.popleft().send(began + sent / per_second)
            sent += 1
        wait = began + sent / per_second - now if sent < count and idle else _PATIENCE
        for key, _ in selector.select(max(0.0, wait)):
            one = key.data
            if status := one.status():
                times.append(time.perf_counter() - one.due)
                statuses.add(status)
                idle.append(one)
    elapsed = time.perf_counter() - began
    selector.close()
    for each in idle:
        each.sock.close()
    times.sort()
    return {
        "per s": count / elapsed,
        "p50 ms": times[count // 2] * 1e3,
        "p99 ms": times[count * 99 // 100] * 1e3,
        "max ms": times[-1] * 1e3,
        "status": statuses.pop() if len(statuses) == 1 else 0,
    }


if __name__ == "__main__":
    asyncio.run(answer(drive))
