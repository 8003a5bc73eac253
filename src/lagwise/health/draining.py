"""A process leaves its load balancers before it stops taking requests: first `/ready` fails, later the server ends."""

import asyncio
import logging
import math
import signal
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from lagwise._client.http import ASGIApp, Message, Receive, Scope, Send
from lagwise._say import say

# Seconds within which two SIGTERM are one: systemd signals the whole group, and the parent of the workers, signalled
# like them, hands it on to them a moment later. The second one would end the grace that the first one began.
_ONE_SIGNAL = 2.0


class ProcessDrain:
    """Takes this process out of its load balancers before its server stops: SIGTERM, `/ready` fails, a grace, the end.

    `lifespan(db, drain=drain)` hears SIGTERM in place of the server, and hands it on when the grace is over; elsewhere
    `async with drain:` around the time in which the application serves does. `health_router(db, drain=drain)` shows it.
    A second SIGTERM ends the grace, unless it comes within two seconds; SIGINT stays the server's own.

    Args:
        grace: seconds from the signal until the server hears of it: longer than load balancers take to notice. For
            HAProxy that is `fall` times `inter`, and one `timeout check`. 0 hands the signal on at once.
        post: whether `POST /drain` of the health router begins it as well. It ends no process: that is up to SIGTERM.

    Raises:
        ValueError: `grace` is not a number of seconds.
    """

    __module__ = "lagwise.health"

    def __init__(self, grace: float = 10.0, *, post: bool = False) -> None:
        if not (math.isfinite(grace) and grace >= 0):
            raise ValueError(f"grace must be a number of seconds, at least 0, not {grace!r}")
        self.grace = grace
        self.post = post
        self._began: float | None = None
        self._signalled: float | None = None
        self._end: asyncio.TimerHandle | None = None
        self._heard: _Terminate | None = None
        self._entered = False

    @property
    def begun(self) -> bool:
        """Whether the process is on its way out of its load balancers."""
        return self._began is not None

    def begin(self) -> None:
        """Let `/ready` fail from now on; once more changes nothing. The process ends at a SIGTERM, not by itself."""
        if self._began is None:
            self._began = monotonic()
            say(logging.INFO, "draining", grace=self.grace)

    def closing(self, app: ASGIApp) -> ASGIApp:
        """For `api.add_middleware(drain.closing)`: while the process drains, answers say `Connection: close`.

        A server closes idle connections when it stops, and a client may send its next request at that very moment.
        Health checks keep load balancers from it; clients behind a balancer of connections (a Kubernetes Service) and
        nginx hear of it from the answer before.
        """

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            # HTTP/2 forbids the header: https://www.rfc-editor.org/rfc/rfc9113#section-8.2.2
            if scope["type"] != "http" or not scope.get("http_version", "1.1").startswith("1"):
                await app(scope, receive, send)
                return

            async def sending(message: Message) -> None:
                if self._began is not None and message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
                await send(message)

            await app(scope, receive, sending)

        return run

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this ProcessDrain is in use already; one serves the whole process")
        self._entered = True
        try:
            self._heard = _Terminate(asyncio.get_running_loop(), self._terminate)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            # Windows has no signals for event loops, and no thread but the main one hears any.
            say(logging.WARNING, "drain-unheard", reason=type(error).__name__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._heard is not None:
            self._heard.give_back()
        self._began = self._signalled = self._end = self._heard = None
        self._entered = False

    def _terminate(self) -> None:
        assert self._heard is not None
        now = monotonic()
        if self._signalled is not None:
            if now - self._signalled >= _ONE_SIGNAL:
                self._hand_on()
            return
        self._signalled = now
        self.begin()
        assert self._began is not None
        # From the beginning: a drain that `POST /drain` began a grace ago is over, and need not be waited for again.
        left = self._began + self.grace - now
        if left > 0:
            self._end = asyncio.get_running_loop().call_later(left, self._hand_on)
        else:
            self._hand_on()

    def _hand_on(self) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._heard is not None:
            self._heard.hand_on()


class _Terminate:
    """SIGTERM, heard in place of whatever heard it before.

    Raises:
        NotImplementedError: the event loop hears no signals (Windows).
        RuntimeError, ValueError: this is not the main thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> None:
        self._loop = loop
        self._before = signal.getsignal(signal.SIGTERM)
        loop.add_signal_handler(signal.SIGTERM, heard)
        # A server that had the loop hear it (hypercorn, granian) has lost its handler to ours, and no call brings it
        # back; what the loop leaves with the signal module is the same before and after. Such a server hears SIGINT.
        self._lost = self._before is None or self._before == signal.getsignal(signal.SIGTERM)

    def hand_on(self) -> None:
        """Do what SIGTERM would have done."""
        if self._lost:
            signal.raise_signal(signal.SIGINT)
        elif callable(self._before):
            self._before(signal.SIGTERM, None)
        else:
            self.give_back()
            signal.raise_signal(signal.SIGTERM)

    def give_back(self) -> None:
        """Restore the handler that was set before. Where that one was lost, the loop keeps ours until it closes."""
        if not self._lost:
            self._loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._before)
