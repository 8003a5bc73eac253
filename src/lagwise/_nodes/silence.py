"""Measures how long a node has been silent, and cuts off the sessions that wait for it."""

from collections.abc import Callable

from lagwise._pools.patience import Patience


class Silence:
    """Calls `abort` when a node has been silent for `after` seconds, and again every `interval` seconds.

    It is called again because some statements reach the node after the first call; they must not wait longer.
    """

    def __init__(self, abort: Callable[[], None], *, after: float, interval: float) -> None:
        self._abort = abort
        self._after = after
        self._interval = interval
        self._counting: Patience | None = None

    def __bool__(self) -> bool:
        """Whether the node is silent."""
        return self._counting is not None

    def begin(self, lasted: float) -> None:
        """Count from a probe that was sent `lasted` seconds ago and not answered; a count under way goes on."""
        if self._counting is None:
            self._count(self._after - lasted)

    def over(self) -> None:
        """Stop counting: the node has answered, perhaps with a refusal."""
        if self._counting is not None:
            self._counting.stop()
            self._counting = None

    def _count(self, left: float) -> None:
        self._counting = Patience(left, self._end)
        self._counting.__enter__()

    def _end(self) -> None:
        # Begin the next count first: `abort` may raise.
        self._count(self._interval)
        self._abort()
