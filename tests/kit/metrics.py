"""Metrics as Prometheus reads them, and the program that checks them."""

import asyncio
import shutil
from collections.abc import Mapping
from time import monotonic
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lagwise import Router
from lagwise._nodes.monitor import Monitor
from lagwise.prometheus import Collector
from tests.kit.worlds import after, primary, replica


class Scraped:
    """What one scrape has answered."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for sample in (sample for family in self.families for sample in family.samples):
            key = sample.name, frozenset(sample.labels.items())
            assert key not in self._values, f"{sample.name} {sample.labels} stands twice"
            self._values[key] = sample.value

    def value(self, name: str, /, **labels: str) -> float:
        """One number. `KeyError` when it is not there."""
        return self._values[name, frozenset(labels.items())]

    def by(self, name: str, *labels: str) -> dict[Any, float]:
        """The sums of a metric by these labels: their values, or a single one; without what is 0."""
        sums: dict[Any, float] = {}
        for (known, each), value in self._values.items():
            if known == name and value:
                named = dict(each)
                key = named[labels[0]] if len(labels) == 1 else tuple(named[label] for label in labels)
                sums[key] = sums.get(key, 0) + value
        return sums

    def total(self, name: str) -> float:
        """The sum of all series of a metric."""
        return sum(self.by(name).values())

    @property
    def names(self) -> set[str]:
        """The names of all metrics, as they are written in queries; those without a sample as well."""
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        return {f.name + suffix for f in self.families for suffix in suffixes.get(f.type, ("",))}


def fleet(nodes: int) -> Router:
    """A Router that looks open, on so many nodes, each with both of its pools; no server is there."""
    url = "postgresql+asyncpg://app@localhost/shop"
    db = Router(url, {f"replica-{number}": url for number in range(1, nodes)})
    view = after([primary(2000, monotonic()), *(replica(name, 1000, monotonic()) for name in [*db.pools][1:])])
    db._nodes._monitor = Monitor(view, {}, db.policy, monotonic, {})
    for pools in db.pools.values():
        assert pools.reads
    return db


def registered(db: Router | Mapping[str, Router]) -> CollectorRegistry:
    """A registry of its own, with a collector for these."""
    registry = CollectorRegistry()
    registry.register(Collector(db))
    return registry


def scrape(registry: CollectorRegistry) -> Scraped:
    """Collect and parse, as Prometheus does."""
    return Scraped(generate_latest(registry).decode())


async def promtool(*arguments: Any, given: str = "") -> str:
    """What promtool says of what it is given, which must be in order; the test is skipped where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, *map(str, arguments), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate(given.encode())
    assert process.returncode == 0, said.decode()
    return said.decode()
