"""What a scrape costs as nodes grow in number: to collect the metrics, and to write them as text for Prometheus."""

from statistics import median
from time import monotonic, perf_counter

from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.decision import world
from benchmarks.tables import Table
from lagwise import Reason, Route, Router
from lagwise._nodes.monitor import Monitor
from lagwise.events import Routed
from lagwise.prometheus import Collector

SIZES = (3, 16, 64, 256)
COLUMNS = ("samples", "collect ms", "scrape ms")


def fleet(nodes: int) -> Router:
    """A Router that looks open, on so many nodes, all of them in use; no server is there."""
    url = "postgresql+asyncpg://app@localhost/shop"
    db = Router(url, {f"replica-{number}": url for number in range(1, nodes)})
    db._nodes._monitor = Monitor(world(nodes - 1), {}, db.policy, monotonic, {})
    for pools in db.pools.values():
        assert pools.reads
    return db


def used(db: Router) -> None:
    """Reads for two reasons on every node."""
    for name in db.pools:
        for reason in (Reason.CAUGHT_UP, Reason.FRESH):
            db._nodes.watchers.pass_on(Routed(route=Route(name, reason, on_replica=True), write=False))


def measured(nodes: int, times: int) -> dict[str, float]:
    """One row: the number of samples, and the medians."""
    db, registry = fleet(nodes), CollectorRegistry()
    collector = Collector(db)
    registry.register(collector)
    used(db)
    collecting, scraping = list[float](), list[float]()
    for _ in range(times):
        began = perf_counter()
        families = list(collector.collect())
        collecting.append(perf_counter() - began)
        began = perf_counter()
        generate_latest(registry)
        scraping.append(perf_counter() - began)
    return {
        "samples": sum(len(family.samples) for family in families),
        "collect ms": median(collecting) * 1000,
        "scrape ms": median(scraping) * 1000,
    }


async def run(quick: bool) -> list[Table]:
    """The table."""
    title = "scrape: metrics for Prometheus by the number of nodes, medians"
    rows = {f"{nodes} nodes": measured(nodes, 5 if quick else 50) for nodes in SIZES}
    return [Table("scrape", title, COLUMNS, rows, drawn=("collect ms", "scrape ms"))]
