"""The kernel asks the other end of a quiet connection, and closes one whose packets nothing answers."""

import socket
from contextlib import suppress
from math import ceil
from typing import Any

from lagwise._pools.internals import transport_of

_QUESTIONS = 3
_LONGEST = 32_767  # seconds: Linux takes no more


def keep_alive(driver: Any, seconds: float, *, reads: bool) -> None:
    """Let the kernel find out that nothing answers on the path of this connection, while its node answers on others.

    A firewall or a load balancer that has forgotten a quiet connection drops its packets: without this a statement
    waits for a quarter of an hour. So a connection that is quiet for `seconds` is asked, which also keeps those in
    between from forgetting it, and is closed after three questions without an answer, after about twice the time: each
    of the two parts is rounded up to whole seconds.

    One for reads is also closed when what it has sent was not received for `seconds`. One for writes is not: Linux
    counts a server that is alive and reads no further, because a batch waits for a lock, as one that does not receive.
    An application that has set these options for itself, or an owner of another kind of socket, keeps what it has.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES, https://www.rfc-editor.org/rfc/rfc5482
    """
    seconds = min(max(1.0, seconds), _LONGEST)
    options = {
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": ceil(seconds),  # macOS has the latter
        "TCP_KEEPINTVL": ceil(seconds / _QUESTIONS),
        "TCP_KEEPCNT": _QUESTIONS,
    }
    if reads:
        options["TCP_USER_TIMEOUT"] = ceil(seconds * 1000)
    used = transport_of(driver).get_extra_info("socket")
    if used is None:
        return
    with suppress(OSError, ValueError):  # a Unix socket; one that is closed already
        # Event loops hand out sockets of their own kinds, not all of which take options.
        link = socket.socket(fileno=used.fileno())
        try:
            if link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
                return
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in options.items():
                if (option := getattr(socket, name, None)) is not None:
                    link.setsockopt(socket.IPPROTO_TCP, option, value)
        finally:
            link.detach()
