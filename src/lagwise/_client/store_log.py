"""What the log says of a store: once that it cannot be relied on, and once that it can be again."""

import logging
import time

from lagwise._say import say

_AT_LEAST = 10.0  # seconds between two warnings


class StoreLog:
    """Tells when a store is lost and when it is back; a store that comes and goes is told of every ten seconds."""

    def __init__(self) -> None:
        self._told = False
        self._quiet_until = 0.0

    def lost(self, why: str) -> None:
        """Reads of principals use the primary from now on. `why` is a class of errors or a state; never their text."""
        now = time.monotonic()
        if not self._told and now >= self._quiet_until:
            self._told, self._quiet_until = True, now + _AT_LEAST
            say(logging.WARNING, "store-lost", reason=why)

    def back(self) -> None:
        """The store is relied on again."""
        if self._told:
            self._told = False
            say(logging.WARNING, "store-back")
