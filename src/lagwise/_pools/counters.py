"""How full a pool is, and what has happened at it."""

from collections import deque
from dataclasses import dataclass, field

from sqlalchemy.pool import Pool

_RECENT = 10.0  # seconds


@dataclass(slots=True)
class Tally:
    """What happened at one pool since the Router was made: counts."""

    waits: int = 0
    waiting: int = 0
    timeouts: int = 0
    opened: int = 0
    _recently: deque[float] = field(default_factory=lambda: deque(maxlen=10_000), repr=False)

    def open(self, now: float) -> None:
        """Count a connection opened at `now`, monotonic seconds."""
        self.opened += 1
        self._recently.append(now)

    def opened_per_second(self, now: float) -> float:
        """The mean of the last ten seconds. A pool that is large enough opens none once it is warm."""
        while self._recently and self._recently[0] < now - _RECENT:
            self._recently.popleft()
        return len(self._recently) / _RECENT


def checked_out(pool: Pool) -> int:
    """Connections in use; 0 for pools that do not count them."""
    count = getattr(pool, "checkedout", None)
    return count() if count is not None else 0


def idle(pool: Pool) -> bool:
    """Whether the pool has an open connection to give at once."""
    count = getattr(pool, "checkedin", None)
    return count is not None and count() > 0


def capacity(pool: Pool) -> float:
    """The most connections this pool opens; infinite for pools without a limit."""
    size = getattr(pool, "size", None)
    return size() + overflow(pool) if size is not None else float("inf")


def overflow(pool: Pool) -> float:
    """How many connections beyond its size this pool opens; infinite for pools without a limit."""
    most: int = getattr(pool, "_max_overflow", -1)  # there is no public name for it
    return most if most >= 0 else float("inf")
