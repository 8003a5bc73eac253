"""Loopback ports that no other process can take while their owner is down."""

from __future__ import annotations

import socket
import sys

# A second socket on the same address, with SO_REUSEADDR on both: Linux allows it until one of them listens,
# BSD and macOS never. While the first stays bound, no process is given the port (bind to 0 and connect skip it).
HOLDS = sys.platform.startswith("linux")


def bound(host: str, port: int = 0) -> socket.socket:
    """A socket bound to ``host`` and ``port`` (0: a free one) that does not listen: connections are refused.

    Raises:
        OSError: The port is taken.
    """
    # Named, because asyncio turns Nagle's delay off only on sockets that say they are TCP.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class HeldPort:
    """A port kept for a server that comes and goes, so that it comes back where it was."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._sock: socket.socket | None = None
        self.number = 0
        self.renew()

    def renew(self) -> None:
        """Give the port up and take another one."""
        self.release()
        self._sock = bound(self._host)
        self.number = int(self._sock.getsockname()[1])
        if not HOLDS:
            self.release()

    def release(self) -> None:
        """Let go of the port; safe to call twice."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
