"""How long a node has been silent, and what becomes of the reads that wait for it."""

from collections.abc import Callable

from lagwise._nodes.patience import Patience


class Silence:
    """Calls `abort` when a node has been silent for `after` seconds, and again every `interval` seconds.

    Again, because reads that were on their way there when the node was given up shall wait no longer than the first.
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
        """The node did not answer a probe that was sent `lasted` seconds ago; unanswered ones before it count more."""
        if self._counting is None:
            self._count(self._after - lasted)

    def over(self) -> None:
        """The node has said something, be it a refusal."""
        if self._counting is not None:
            self._counting.stop()
            self._counting = None

    def _count(self, left: float) -> None:
        self._counting = Patience(left, self._end)
        self._counting.__enter__()

    def _end(self) -> None:
        # First the next count: what `abort` runs into is not this node's concern.
        self._count(self._interval)
        self._abort()
