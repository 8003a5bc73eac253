"""The event loop that a Router was opened in: its connections belong to that loop, and work in no other."""

import asyncio
import os
from weakref import WeakSet

from lagwise.errors import NotOpen


class Home:
    """The loop, as long as the Router is open; in a forked child there is none."""

    __slots__ = ("__weakref__", "forked", "loop")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.forked = False

    def settle(self) -> None:
        """The running loop is the Router's from here on."""
        self.loop, self.forked = asyncio.get_running_loop(), False
        _homes.add(self)

    def elsewhere(self) -> NotOpen:
        """What a session in another loop is told."""
        where = "before this process was forked" if self.forked else "in another event loop, or another thread"
        return NotOpen(
            f"this Router was opened {where}, and its connections work only there: "
            "open a Router in each process and each event loop that uses one"
        )


_homes: WeakSet[Home] = WeakSet()


def _forked() -> None:
    for home in _homes:
        home.loop, home.forked = None, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
