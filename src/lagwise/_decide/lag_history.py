"""Replication lag in seconds, from where the primary's log stood at which time."""

from bisect import bisect_right
from dataclasses import dataclass
from math import inf

from lagwise._decide.lsn import LSN

_SAMPLES = 512
_RESOLUTION = 0.02  # the gap kept between old samples, as a share of their age


@dataclass(frozen=True, slots=True)
class LagHistory:
    """Samples of the primary's position: the only clock that measures staleness.

    A replica's own timestamps grow while the primary is idle and stand still when its receiver is dead.
    """

    lsns: tuple[LSN, ...] = ()
    times: tuple[float, ...] = ()

    def seen(self, lsn: LSN, at: float) -> "LagHistory":
        """Add a sample taken at `at`, monotonic seconds.

        Equal positions keep the latest time. A crash that lost log drops the samples of what it lost.
        """
        keep = bisect_right(self.lsns, lsn)
        if keep and self.lsns[keep - 1] == lsn:
            keep, at = keep - 1, max(at, self.times[keep - 1])
        history = LagHistory((*self.lsns[:keep], lsn), (*self.times[:keep], at))
        return history._thinned(at) if keep >= _SAMPLES else history

    def fresh_at(self, replayed: LSN) -> float:
        """The latest time before which every commit is included in `replayed`; -inf when unknown."""
        index = bisect_right(self.lsns, replayed)
        return self.times[index - 1] if index else -inf

    def _thinned(self, now: float) -> "LagHistory":
        """Fewer samples, the fewer the older: staleness is overstated by 2 % at most, never understated."""
        kept = [len(self.times) - 1]
        for index in range(len(self.times) - 2, -1, -1):
            if self.times[kept[-1]] - self.times[index] >= (now - self.times[index]) * _RESOLUTION:
                kept.append(index)
        kept = kept[: _SAMPLES // 2][::-1]
        return LagHistory(tuple(self.lsns[i] for i in kept), tuple(self.times[i] for i in kept))
