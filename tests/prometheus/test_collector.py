"""The collector: what Prometheus reads of a Router, before it is open, while it is, and afterwards."""

import sys
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from sqlalchemy import text

from lagwise import LSN, Causality, CausalToken, Policy, Router, events
from lagwise._decide.token import Position
from lagwise.prometheus import Collector
from lagwise.testing import Cluster, wait_until
from tests.kit.counting import instructions
from tests.kit.metrics import Scraped, fleet, promtool, registered, scrape
from tests.kit.routers import PATIENT, QUICK, in_rotation, router, stand_still

PLANTED = "postgresql+asyncpg://planted-user:planted-password@planted-host.example:5999/planted"

# Instructions for each node of a scrape: measured with CPython 3.11, and a tenth on top.
BUDGET = 1130


async def read(db: Router) -> None:
    """One read session."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))


async def write(db: Router) -> None:
    """One commit."""
    async with db.write.begin() as session:
        await session.execute(text("INSERT INTO item (name) VALUES ('scraped')"))


def lines(scraped: Scraped, *, of_nodes: bool) -> list[str]:
    """The names of the metrics that have samples, with the label of a node or without."""
    named = [f for f in scraped.families if any(("node" in s.labels) is of_nodes for s in f.samples)]
    return [family.name for family in named]


async def test_a_router_is_scraped_before_during_and_after_its_life(cluster: Cluster) -> None:
    """A closed Router has counts and no nodes; opened again it goes on counting."""
    db = router(cluster, PATIENT)
    registry = registered(db)
    before = scrape(registry)
    assert before.value("lagwise_open") == 0
    assert lines(before, of_nodes=True) == []
    assert before.value("lagwise_waits_total", outcome="replica") == 0
    for turn in (1, 2):
        async with db:
            await in_rotation(db, "replica-1", "replica-2")
            await read(db)
            with Causality():
                await write(db)
            during = scrape(registry)
        after = scrape(registry)
        assert (during.value("lagwise_open"), after.value("lagwise_open")) == (1, 0)
        for scraped in (during, after):
            assert scraped.by("lagwise_routes_total", "role") == {"read": turn, "write": turn}
            assert scraped.by("lagwise_positions_total", "node", "outcome") == {("primary", "with-commit"): turn}
            assert scraped.value("lagwise_pool_opened_total", node="primary", pool="writing") == turn
        assert during.by("lagwise_node_primary", "node") == {"primary": 1}
        assert during.value("lagwise_primary_in_sight") == 1
        assert during.by("lagwise_node_in_rotation", "node") == {"replica-1": 1, "replica-2": 1}
        assert during.value("lagwise_node_staleness_seconds", node="primary") == 0
        assert during.value("lagwise_pool_idle", node="primary", pool="writing") == 1
        assert during.value("lagwise_pool_limit", node="primary", pool="writing") == 20
        assert "lagwise_node_primary" not in lines(after, of_nodes=True)
        assert after.total("lagwise_pool_used") == after.total("lagwise_pool_idle") == 0


async def test_both_formats_are_read_back_and_checked(cluster: Cluster) -> None:
    """The text format and OpenMetrics say the same; promtool finds nothing to object to."""
    db = router(cluster, PATIENT)
    registry = registered(db)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        await read(db)
        plain = scrape(registry)
        written = as_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
        newer = list(parsed_openmetrics(written))  # type: ignore[no-untyped-call]
    assert {family.name for family in newer} == {family.name for family in plain.families}
    assert {s.name for family in newer for s in family.samples} == {
        s.name for family in plain.families for s in family.samples
    }
    assert all(family.documentation for family in plain.families)
    await promtool("check", "metrics", given=plain.text)


async def test_a_replica_that_stands_still_is_seen(cluster: Cluster) -> None:
    """Log that is not replayed in bytes; a client's own write waits, falls back and is counted with its reason."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0.05, probe_timeout=5)
    db = router(cluster, policy)
    registry = registered(db)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        await stand_still(cluster)
        with Causality():
            await write(db)
            await read(db)

        def behind() -> bool:
            scraped = scrape(registry)
            return set(scraped.by("lagwise_node_lag_bytes", "node")) == {"replica-1", "replica-2"}

        await wait_until(behind, what="both replicas lack log")
        scraped = scrape(registry)
    assert scraped.by("lagwise_fall_backs_total", "reason") == {"none-caught-up": 1}
    assert scraped.by("lagwise_waits_total", "outcome") == {"primary": 1}
    assert scraped.value("lagwise_wait_seconds_count") == 1
    assert scraped.value("lagwise_wait_seconds_bucket", le="0.01") == 0
    assert scraped.value("lagwise_wait_seconds_sum") >= policy.catch_up
    assert scraped.value("lagwise_wait_seconds_bucket", le="+Inf") == 1
    assert scraped.value("lagwise_max_lag_seconds") == 60


async def test_what_is_held_back_is_counted(cluster: Cluster) -> None:
    """In shadow mode: what replicas would have served, and that a naive split would have missed the client's write."""
    db = router(cluster, PATIENT)
    registry = registered(db)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        assert scrape(registry).value("lagwise_offload_ratio") == 1
        db.offload = 0
        await read(db)
        await stand_still(cluster)
        with Causality():
            await write(db)
            await read(db)
        await wait_until(lambda: db.shadow.reads == 2, what="both are judged")
        scraped = scrape(registry)
    assert scraped.value("lagwise_offload_ratio") == 0
    assert scraped.by("lagwise_held_back_reads_total", "would") == {"replica": 1, "primary": 1}
    assert scraped.value("lagwise_held_back_naively_stale_total") == 1


async def test_a_node_that_is_gone_is_unbounded(cluster: Cluster) -> None:
    """A killed replica: its eviction and its return are counted, its staleness and its reading have no bound."""
    db = router(cluster, QUICK)
    registry = registered(db)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.kill("replica-1")
        await wait_until(lambda: len(db.view.rotation) == 1, what="the loss is seen")
        gone = scrape(registry)
        await cluster.start("replica-1")
        await in_rotation(db, "replica-1", "replica-2")
        back = scrape(registry)
    for metric in ("staleness_seconds", "lag_bytes", "reading_age_seconds"):
        assert gone.value(f"lagwise_node_{metric}", node="replica-1") == inf
        assert back.value(f"lagwise_node_{metric}", node="replica-1") < inf
    assert gone.value("lagwise_node_in_rotation", node="replica-1") == 0
    assert gone.by("lagwise_evictions_total", "node", "standing") == {("replica-1", "unreachable"): 1}
    assert (gone.total("lagwise_returns_total"), back.by("lagwise_returns_total", "node")) == (0, {"replica-1": 1})


async def test_sticky_clients_are_those_under_way(cluster: Cluster) -> None:
    """A client in doubt counts once while it is served, however many sessions it opens, and not afterwards."""
    db = router(cluster, PATIENT)
    registry = registered(db)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as seen:
            seen.doubt()
            await read(db)
            await read(db)
            with Causality(CausalToken.of([Position(system=db.view.system, timeline=1, lsn=LSN(1), issued_at=1)])):
                await read(db)
            assert scrape(registry).value("lagwise_sticky_clients") == 1
        assert scrape(registry).value("lagwise_sticky_clients") == 0
        assert scrape(registry).by("lagwise_routes_total", "reason")["sticky"] == 2


async def test_fall_back_places_are_those_taken(cluster: Cluster) -> None:
    """Sessions that hold a place of `fall_back_limit`, beside the limit; a further one is refused, and counted."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, probe_timeout=5, fall_back_limit=1)
    db = router(cluster, policy)
    registry = registered(db)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        for name in ("replica-1", "replica-2"):
            db.drain(name)
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
            with pytest.raises(Exception, match="fall_back_limit"):
                await read(db)
            taken = scrape(registry)
        assert taken.value("lagwise_fall_back_places_used") == 1 == taken.value("lagwise_fall_back_places_limit")
        assert taken.by("lagwise_refusals_total", "error", "role") == {("NoReplica", "read"): 1}
        assert scrape(registry).value("lagwise_fall_back_places_used") == 0
        assert scrape(registry).by("lagwise_evictions_total", "standing") == {"drained": 2}


async def test_no_address_is_in_any_metric() -> None:
    """A Router on nodes that are not there: neither URL nor error text leaves, and the refusal is counted."""
    db = Router(PLANTED, [PLANTED], policy=QUICK)
    registry = registered(db)
    async with db:
        with pytest.raises(Exception, match="no primary"):
            await write(db)
        scraped = scrape(registry)
    assert "planted" not in scraped.text
    assert scraped.by("lagwise_refusals_total", "error", "role") == {("NoPrimary", "write"): 1}
    assert scraped.by("lagwise_node_staleness_seconds", "node")["replica-1"] == inf


async def test_two_routers_are_told_apart(cluster: Cluster) -> None:
    """By the label `database`; a registry refuses a second collector, and takes it in place of the first."""
    shop, archive = router(cluster, PATIENT), router(cluster, PATIENT)
    registry = CollectorRegistry()
    both = Collector({"shop": shop, "archive": archive})
    registry.register(both)
    async with shop, archive:
        await in_rotation(shop, "replica-1", "replica-2")
        await in_rotation(archive, "replica-1", "replica-2")
        await read(shop)
        scraped = scrape(registry)
        assert scraped.by("lagwise_routes_total", "database") == {"shop": 1}
        assert scraped.by("lagwise_node_primary", "database", "node") == {
            ("shop", "primary"): 1,
            ("archive", "primary"): 1,
        }
        await promtool("check", "metrics", given=scraped.text)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Collector(archive))
    registry.unregister(both)
    both.close()
    registry.register(Collector(archive))
    assert scrape(registry).total("lagwise_routes_total") == 0


async def test_a_closed_collector_hears_nothing(cluster: Cluster) -> None:
    """After `close()` a Router makes no events in vain; what was counted stays."""
    db = router(cluster, PATIENT)
    registry = CollectorRegistry()
    collector = Collector(db)
    registry.register(collector)
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        await read(db)
        collector.close()
        await read(db)
        assert db._nodes.watchers.told is None
    assert scrape(registry).total("lagwise_routes_total") == 1


@pytest.mark.parametrize("nothing", [{}, {"": Router("sqlite+aiosqlite://")}])
def test_a_collector_wants_routers_with_names(nothing: Any) -> None:
    """None, or one without a name, is an error that shows how."""
    with pytest.raises(ValueError, match=r'Collector\({"shop": db'):
        Collector(nothing)


async def test_sqlite_has_one_pool() -> None:
    """Without PostgreSQL, as in unit tests, the metrics are there, and one pool is shown once."""
    db = Router("sqlite+aiosqlite://")
    registry = registered(db)
    async with db:
        await read(db)
        scraped = scrape(registry)
    assert scraped.by("lagwise_routes_total", "reason") == {"no-replicas": 1}
    assert {key[1] for key in scraped.by("lagwise_pool_limit", "node", "pool")} <= {"writing"}


def test_a_scrape_in_another_thread_meets_no_half_written_count() -> None:
    """A server thread scrapes while the event loop counts new nodes and reasons: no scrape fails."""
    db = Router("sqlite+aiosqlite://")
    registry = registered(db)
    done = False

    def scraping() -> int:
        scrapes = 0
        while not done or not scrapes:
            scrape(registry)
            scrapes += 1
        return scrapes

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            scraped = pool.submit(scraping)
            for number in range(3_000):
                db._nodes.watchers.pass_on(events.Retried(node=f"replica-{number}", failure="lost"))
            done = True
            assert scraped.result() > 0
    finally:
        sys.setswitchinterval(before)
    assert scrape(registry).total("lagwise_retries_total") == 3_000


def test_a_scrape_grows_with_the_nodes_and_no_faster() -> None:
    """In instructions: each further node costs the same, and not more than its budget, whatever the number."""

    def cost(nodes: int) -> int:
        collector = Collector(fleet(nodes))
        list(collector.collect())  # the labels are made once
        with instructions() as counted:
            families = list(collector.collect())
        (family,) = [family for family in families if family.name == "lagwise_node_in_rotation"]
        assert len(family.samples) == nodes
        return counted[0]

    few, more, many = cost(2), cost(3), cost(256)
    assert 0 < more - few <= BUDGET
    assert many - few <= 254 * (more - few) * 1.01


def test_a_metric_of_the_applications_own_is_not_in_the_way() -> None:
    """One registry has both."""
    registry = registered(Router("sqlite+aiosqlite://"))
    Counter("shop_orders", "Orders.", registry=registry).inc()
    assert scrape(registry).value("shop_orders_total") == 1
