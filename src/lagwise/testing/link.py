"""One proxied connection: two ends that copy to each other, and the framing that finds ReadyForQuery."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import cast

from lagwise.testing.wire import Wire

_SSL_REQUEST, _GSS_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102
_TLS_HANDSHAKE = 0x16
_READY = ord("Z")


class Framing:
    """Reads the PostgreSQL protocol as it passes, in whatever pieces it arrives.

    https://www.postgresql.org/docs/current/protocol-message-formats.html

    Attributes:
        application: ``application_name`` of the start-up message.
        opaque: The rest cannot be read: TLS, GSS encryption or a cancel request.
    """

    def __init__(self) -> None:
        self.application = ""
        self.opaque = False
        self._started = False  # the client's start-up message was seen
        self._replies = 0  # unframed one-byte answers still to come from the server
        self._first = bytearray()
        self._header = bytearray()
        self._skip = 0

    def from_client(self, data: bytes) -> None:
        """Read the client's first message: whether the answer begins with a bare byte, and the application's name."""
        if self._started or self.opaque:
            return
        self._first += data
        while len(self._first) >= 8:
            length, code = struct.unpack_from(">II", self._first)
            if self._first[0] == _TLS_HANDSHAKE or code == _CANCEL_REQUEST:
                self.opaque = True
                return
            if code not in {_SSL_REQUEST, _GSS_REQUEST}:
                if len(self._first) >= length:
                    self._started = True
                    fields = bytes(self._first[8:length]).split(b"\0")
                    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
                    self.application = pairs.get(b"application_name", b"").decode(errors="replace")
                    self._first.clear()
                return
            self._replies += 1
            del self._first[:8]

    def from_server(self, data: bytes) -> int:
        """How many ReadyForQuery messages begin in ``data``."""
        if self.opaque:
            return 0
        at, end, ready = 0, len(data), 0
        while at < end and self._replies:
            answer = data[at : at + 1]
            if answer in {b"S", b"G"}:
                self.opaque = True
                return 0
            if answer == b"E":  # a server too old to know the request answers with a framed error
                self._replies = 0
                break
            self._replies -= 1
            at += 1
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            part = data[at : at + 5 - len(self._header)]
            self._header += part
            at += len(part)
            if len(self._header) == 5:
                kind, length = struct.unpack(">BI", self._header)
                self._header.clear()
                self._skip = length - 4
                ready += kind == _READY
        return ready


class Link:
    """One client connection and its connection to the server."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.client, self.server = End(self), End(self)
        self.closed = asyncio.Event()
        self.lossy = False
        self._framing = Framing() if wire.counting else None
        self._connected = False

    def received(self, end: End, data: bytes) -> None:
        """Pass on what one end sent, or lose it, or hold it back."""
        if self.wire.swallowing:
            self.lossy = True
        elif end is self.client:
            if self._framing is not None:
                self._framing.from_client(data)
            self.server.waiting.append(data)
            if self.wire.latency or len(self.server.waiting) > 1:
                asyncio.get_running_loop().call_later(self.wire.latency, self._send_next)
            else:
                self._send_next()
        else:
            if self._framing is not None and (ready := self._framing.from_server(data)):
                first = not self._connected
                self._connected = True
                self.wire.count(self._framing.application, ready - first, int(first))
            self.client.waiting.append(data)
            if not self.wire.frozen:
                self.client.flush()

    def ended(self, end: End, error: Exception | None) -> None:
        """Close the other end in the same manner: one end is gone. In a black hole neither end notices."""
        if self.wire.swallowing:
            self.lossy = True
        elif error is not None:
            self.abort()
        else:
            other = self.server if end is self.client else self.client
            other.close()
        if self.client.gone and (self.server.gone or self.server.transport is None):
            self.closed.set()

    def hold(self) -> None:
        """Stop reading at both ends; what is sent piles up in the kernel."""
        for end in (self.client, self.server):
            end.read(False)

    def release(self) -> None:
        """Read at both ends again, as soon as there are two."""
        if self.server.transport is None:
            return
        for end in (self.client, self.server):
            if not self.wire.frozen:
                end.flush()
            end.read(not self.wire.frozen)

    def abort(self) -> None:
        """Reset both ends."""
        for end in (self.client, self.server):
            end.abort()

    def _send_next(self) -> None:
        # Timers with equal deadlines fire in any order; the queue keeps the bytes in theirs.
        if self.wire.swallowing:
            self.lossy = True
        elif self.server.transport is not None and not self.wire.frozen:
            self.server.flush(1)


class End(asyncio.Protocol):
    """One socket of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self.waiting: deque[bytes] = deque()  # to be sent to it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's call: there is a socket."""
        # Not paused here until the other end is there: older 3.11 releases forget it. What comes early waits.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio's call: there are bytes."""
        self._link.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's call: the socket is gone."""
        self.gone = True
        self._link.ended(self, exc)

    def pause_writing(self) -> None:
        """Asyncio's call: this end takes no more for now, so read no more at the other."""
        self._other.read(False)

    def resume_writing(self) -> None:
        """Asyncio's call: this end takes more."""
        self._other.read(not self._link.wire.frozen)

    @property
    def _other(self) -> End:
        return self._link.server if self is self._link.client else self._link.client

    def read(self, on: bool) -> None:
        """Read from the socket, or let it pile up."""
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.resume_reading if on else self.transport.pause_reading)()

    def flush(self, most: int | None = None) -> None:
        """Send what waits, or the first ``most`` pieces of it, if the other end is there."""
        for _ in range(len(self.waiting) if most is None else min(most, len(self.waiting))):
            data = self.waiting.popleft()
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(data)

    def close(self) -> None:
        """Close when all is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now, with a TCP reset."""
        if self.transport is None or self.gone:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
