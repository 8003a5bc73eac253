"""The collector: what the Routers of a process have counted, and how their nodes and pools are when it is asked."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector as Collecting
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from lagwise._nodes.tally import Key, Tally
from lagwise._pools.counters import BOUNDS, Durations
from lagwise.prometheus.files import Files
from lagwise.prometheus.metrics import COUNTERS, DESCRIBED, KNOWN, Described, Kind
from lagwise.prometheus.reading import histograms, numbers
from lagwise.router import Router

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_LABEL = "database"
_FAMILIES: dict[Kind, type[Family]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_BOUNDS = (*map(floatToGoString, BOUNDS), "+Inf")


class _Series(dict[Key, dict[str, str]]):
    """The labels of each series of one metric, made once: of many nodes they would be a third of a scrape."""

    def __init__(self, described: Described, names: Key, prefix: Key) -> None:
        super().__init__()
        self.name = described.sample_name
        self._names = (*names, *described.labels)
        self._prefix = prefix

    def __missing__(self, key: Key) -> dict[str, str]:
        labels = self[key] = dict(zip(self._names, (*self._prefix, *key), strict=True))
        return labels


class _Counted(NamedTuple):
    """One Router: the label of its database, what is counted of it, and its series by the names of their metrics."""

    key: Key
    router: Router
    tally: Tally
    series: dict[str, _Series]


class Collector(Collecting):
    """`REGISTRY.register(Collector(db))`: the metrics `lagwise_...` of a Router, before it is open and after it closed.

    Events are counted from here on, also by a Router that is opened again. Nothing is asked of any database.
    `docs/metrics.md` explains each metric.

    With `PROMETHEUS_MULTIPROC_DIR` set, as prometheus-client wants it for several worker processes, each process
    writes its numbers to its own files there, and a `MultiProcessCollector` adds them up: what is counted is written
    at once, gauges every second while a Router is open.

    Args:
        db: a Router, or Routers by name for a process with several: then every metric has the label `database` too.

    Raises:
        ValueError: there is no Router, or a name is empty.
    """

    __module__ = "lagwise.prometheus"

    def __init__(self, db: Router | Mapping[str, Router]) -> None:
        routers = {"": db} if isinstance(db, Router) else dict(db)
        if not routers or (isinstance(db, Mapping) and not all(routers)):
            raise ValueError('Collector wants a Router, or Routers by name: Collector({"shop": db, "log": other})')
        self._labels: Key = () if isinstance(db, Router) else (_LABEL,)
        multiprocess = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._files = Files(self._labels) if multiprocess else None
        self._counted: list[_Counted] = []
        self._stop: list[Callable[[], None]] = []
        for name, router in routers.items():
            key = (name,) if self._labels else ()
            if self._files is not None:
                tally, watcher = self._files.counting(key, router)
            else:
                tally = watcher = Tally()
            for counted, keys in KNOWN.items():
                for each in keys:
                    getattr(tally, counted)[each] += 0
            series = {each.name: _Series(each, self._labels, key) for each in DESCRIBED}
            self._counted.append(_Counted(key, router, tally, series))
            self._stop.append(router.watch(watcher))

    def close(self) -> None:
        """Stop counting: for a Router that goes on without this collector. Unregister it first."""
        for stop in self._stop:
            stop()
        if self._files is not None:
            self._files.close()

    def describe(self) -> Iterable[Family]:
        """Every metric, without numbers: a registry refuses a second collector by it."""
        return self._families().values()

    def collect(self) -> Iterator[Family]:
        """Every metric of this process, as of now; called by the registry, in whatever thread."""
        families = self._families()
        for counted in self._counted:
            series = {name: (family.samples.append, counted.series[name]) for name, family in families.items()}
            for name, described in COUNTERS.items():
                append, known = series[described.name]
                for key, count in counted.tally.counted(name).items():
                    append(Sample(known.name, known[key], count))
            for described, key, number in numbers(counted.router):
                append, known = series[described.name]
                append(Sample(known.name, known[key], number))
            for described, key, durations in histograms(counted.router, counted.tally):
                family = families[described.name]
                if isinstance(family, HistogramMetricFamily):
                    total = sum(each.total for each in durations)
                    family.add_metric((*counted.key, *key), _buckets(durations), total)
        yield from families.values()

    def _families(self) -> dict[str, Family]:
        """All families by the names of their metrics, empty."""
        return {
            each.name: _FAMILIES[each.kind](each.full_name, each.help, labels=(*self._labels, *each.labels))
            for each in DESCRIBED
        }


def _buckets(durations: list[Durations]) -> list[tuple[str, float]]:
    """The buckets of all of these together, as Prometheus has them: each contains those before it."""
    together = map(sum, zip(*(each.counts for each in durations), strict=True))
    return list(zip(_BOUNDS, accumulate(together), strict=True))
