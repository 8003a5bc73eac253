"""Several worker processes: each writes its numbers to files of its own, through prometheus-client's metrics."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

from lagwise._decide.events import Event, Watcher
from lagwise._nodes.tally import Key, Tally
from lagwise._pools.counters import BOUNDS
from lagwise.prometheus.metrics import COUNTERS, GAUGES, HISTOGRAMS, KEPT_ELSEWHERE, OPEN, PRIMARY, Described
from lagwise.prometheus.reading import histograms, numbers
from lagwise.router import Router

_EVERY = 1.0  # seconds
_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class Files:
    """The metrics of one process in prometheus-client's multiprocess mode, where a custom collector is not asked.

    A count is in the process's file when the event has been told, so that it outlives a killed process. Gauges have to
    be written before another process is asked for them: a timer of the event loop does it while a Router is open. The
    first event starts the timer, in the process and the loop where sessions are, whichever process made the collector.
    """

    def __init__(self, labels: Key) -> None:
        kept = (*COUNTERS.values(), *KEPT_ELSEWHERE)
        self._counters = {
            each.name: Counter(each.full_name, each.help, (*labels, *each.labels), registry=None) for each in kept
        }
        self._gauges = {
            each.name: Gauge(
                each.full_name,
                each.help,
                (*labels, *each.labels),
                registry=None,
                multiprocess_mode=each.across or "all",
            )
            for each in GAUGES
        }
        self._histograms = {
            each.name: Histogram(each.full_name, each.help, (*labels, *each.labels), registry=None, buckets=BOUNDS)
            for each in HISTOGRAMS
        }
        self._routers: list[tuple[Key, Router]] = []
        self._primaries = set[Key]()
        self._stop: list[Callable[[], None]] = []
        self._pooled: dict[tuple[str, Key], float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def counting(self, key: Key, router: Router) -> tuple[Tally, Watcher]:
        """A tally whose counts are written when they change, and the watcher for this Router. `key`: its label."""
        tally = Tally(lambda name: _Written(self._counters[COUNTERS[name].name], key))
        for described, labels, durations in histograms(router, tally):
            observe = _child(self._histograms[described.name], (*key, *labels)).observe
            for each in durations:
                self._stop.append(each.hear(observe))
        self._routers.append((key, router))

        def watcher(event: Event) -> None:
            tally(event)
            self._begin()

        with suppress(RuntimeError):  # where no loop runs, the first event begins
            self._begin()
        return tally, watcher

    def close(self) -> None:
        """Write no more, once the timer has seen it."""
        self._routers.clear()
        for stop in self._stop:
            stop()

    def write(self) -> bool:
        """Write what is counted elsewhere, and the gauges; whether a Router is open, or still closes its pools."""
        goes_on, primaries = False, self._primaries
        self._primaries = set()
        for key, router in self._routers:
            for described, labels, number in numbers(router):
                if described is PRIMARY:
                    self._primaries.add((*key, *labels))
                goes_on = goes_on or (described is OPEN and number > 0)
                self._write(described, (*key, *labels), number)
            goes_on = goes_on or any(pools.in_use() for pools in router.pools.values())
        for key in primaries - self._primaries:
            self._write(PRIMARY, key, 0)  # no series can be taken back
        return goes_on

    def _write(self, described: Described, key: Key, number: float) -> None:
        if described.across is not None:
            _child(self._gauges[described.name], key).set(number)
            return
        before = self._pooled.get((described.name, key), 0)
        _child(self._counters[described.name], key).inc(number - before)
        self._pooled[described.name, key] = number

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            # An empty context: a request that has told the first event ends before the timer does.
            loop.call_soon(self._tick, loop, context=Context())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        self._loop = None  # in case that writing fails: the next event begins anew
        if self.write():
            self._loop = loop
            loop.call_later(_EVERY, self._tick, loop)


class _Written(dict[Key, int]):
    """Counts that are written when they change."""

    def __init__(self, counter: Counter, prefix: Key) -> None:
        super().__init__()
        self._child = partial(_child, counter)
        self._prefix = prefix

    def __missing__(self, key: Key) -> int:
        return 0

    def __setitem__(self, key: Key, count: int) -> None:
        before = self.get(key, 0)
        super().__setitem__(key, count)
        self._child((*self._prefix, *key)).inc(count - before)


def _child(metric: _Metric, key: Key) -> _Metric:
    return metric.labels(*key) if key else metric
