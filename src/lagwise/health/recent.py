"""What happened lately, in rings: each has a bound, and none has a clock."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

Kind = Literal["evicted", "returned", "changed", "promoted", "cluster", "retried", "position", "token-ignored"]


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened, in words for people. Two that are equal are one thing that happened twice."""

    kind: Kind
    node: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Folded:
    """How often it happened, and when first and last: monotonic seconds."""

    count: int
    first: float
    last: float


class PerSecond:
    """Counts by word over the last `seconds`, one counter for each of them."""

    def __init__(self, seconds: int = 60) -> None:
        self.seconds = seconds
        self._counters: deque[tuple[int, Counter[str]]] = deque(maxlen=seconds)

    def add(self, word: str, now: float) -> None:
        """Count one at `now`, monotonic seconds."""
        if not self._counters or self._counters[-1][0] != int(now):
            self._counters.append((int(now), Counter()))
        self._counters[-1][1][word] += 1

    def totals(self, now: float) -> dict[str, int]:
        """The counts of the last seconds by word, the greatest first."""
        total: Counter[str] = Counter()
        for second, counter in tuple(self._counters):
            if second > int(now) - self.seconds:
                total.update(counter)
        return dict(total.most_common())


class Samples:
    """The last `most` samples, numbered in steps of time; a step without one is empty."""

    def __init__(self, most: int = 300) -> None:
        self.most = most
        self.last = -1
        """The number of the latest sample; -1 before the first."""
        self._all: deque[Mapping[str, float]] = deque(maxlen=most)

    def add(self, number: int, values: Mapping[str, float]) -> None:
        """Keep what was measured at step `number`, unless there is a sample of that step already."""
        if number <= self.last:
            return
        missed = min(number - self.last - 1, self.most) if self._all else 0
        self._all.extend([{}] * missed)
        self._all.append(values)
        self.last = number

    def after(self, number: int, names: Iterable[str]) -> dict[str, list[float | None]]:
        """For each name its values after step `number`, the oldest first; None where there is none."""
        kept = tuple(self._all)
        fresh = tuple(islice(kept, max(0, len(kept) - max(0, self.last - number)), None))
        return {name: [each.get(name) for each in fresh] for name in names}


class Happenings:
    """The last `most` different things that happened; what happens again is counted, and moves to the front."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._all: dict[Told, Folded] = {}

    def add(self, told: Told, now: float) -> None:
        """Note what happened at `now`, monotonic seconds."""
        before = self._all.pop(told, None)
        self._all[told] = Folded(before.count + 1 if before else 1, before.first if before else now, now)
        if len(self._all) > self._most:
            del self._all[next(iter(self._all))]

    def latest(self) -> list[tuple[Told, Folded]]:
        """All of them, the latest first."""
        return list(self._all.items())[::-1]
