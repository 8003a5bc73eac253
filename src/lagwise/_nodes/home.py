"""The event loop that a Router was opened in: its connections work in that loop only."""

import asyncio
import os
from weakref import WeakSet

from lagwise.errors import NotOpen


class Home:
    """The loop that the Router was opened in; None in a forked child."""

    __slots__ = ("__weakref__", "forked", "loop")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.forked = False

    def settle(self) -> None:
        """The running loop is the Router's from here on."""
        self.loop, self.forked = asyncio.get_running_loop(), False
        _homes.add(self)

    def leave(self) -> None:
        """This process is a forked child: no loop here is the Router's."""
        self.loop, self.forked = None, True

    def require(self) -> None:
        """Raise `NotOpen` in another event loop, thread or process."""
        if asyncio.get_running_loop() is not self.loop:
            raise self.elsewhere()

    def elsewhere(self) -> NotOpen:
        """The error for a session in another event loop, thread or process."""
        where = "before this process was forked" if self.forked else "in another event loop, or another thread"
        return NotOpen(
            f"this Router was opened {where}, and its connections work only there: "
            "open a Router in each process and each event loop that uses one"
        )


_homes: WeakSet[Home] = WeakSet()


def _forked() -> None:
    for home in _homes:
        home.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
