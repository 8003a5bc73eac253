"""What OpenTelemetry is told, read back through its SDK."""

import asyncio
import gc
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from weakref import ref

import asyncpg  # type: ignore[import-untyped]
import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.trace import ReadableSpan
from sqlalchemy import make_url, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lagwise import Causality, NoPrimary, NoReplica, Policy, Router
from lagwise._nodes.tally import LABELS
from lagwise.opentelemetry import instrument
from lagwise.opentelemetry.observed import COUNTERS, GAUGES, HELD_BACK, POOLS
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import LONG, both_in_rotation, patient, router, stand_still
from tests.kit.telemetry import POOL, Telemetry

ROOT = Path(__file__).parents[2]
SELECT = text("SELECT 1")
INSERT = text("INSERT INTO item (name) VALUES ('told')")


def lasted(span: ReadableSpan) -> float:
    """Seconds."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@pytest.fixture
def told() -> Telemetry:
    """Providers of a test's own."""
    return Telemetry()


@pytest.fixture
async def db(cluster: Cluster, told: Telemetry) -> AsyncIterator[Router]:
    """A Router with pools of one connection, instrumented."""
    db = router(cluster, LONG, pool_size=1, pool_timeout=0.3)
    instrument(db, told.meters, told.tracers)
    async with db:
        await both_in_rotation(db)
        yield db


async def test_pools_are_told_by_the_names_of_the_conventions(db: Router, told: Telemetry) -> None:
    """Count, most, pending, time-outs, and how long waits and openings took: for each pool of a node apart."""
    pool = {"db__client__connection__pool__name": "primary.writing"}
    used, idle = ({**pool, "db__client__connection__state": state} for state in ("used", "idle"))
    assert told.value("db.client.connection.count", **used) is None  # no session has used it yet
    async with db.write() as first:
        await first.execute(SELECT)
        assert told.value("db.client.connection.count", **used) == 1
        assert told.value("db.client.connection.count", **idle) == 0
        assert told.value("db.client.connection.max", **pool) == 1

        async def late() -> None:
            async with db.write() as session:
                await session.execute(SELECT)

        with pytest.raises(PoolTimeout):
            await asyncio.create_task(late())
        assert told.value("db.client.connection.timeouts", **pool) == 1
        waiting = asyncio.create_task(late())
        counters = db.pools["primary"].tallies["writing"]
        await wait_until(lambda: counters.waiting == 1, what="a session waits")
        assert told.value("db.client.connection.pending_requests", **pool) == 1
    await waiting
    assert told.value("db.client.connection.count", **used) == 0
    assert told.value("db.client.connection.count", **idle) == 1
    assert told.value("db.client.connection.pending_requests", **pool) == 0
    wait, create = (told.value(f"db.client.connection.{what}_time", **pool) for what in ("wait", "create"))
    assert (wait.count, tuple(wait.bucket_counts)) == (counters.wait_time.count, counters.wait_time.counts)
    assert wait.sum == pytest.approx(counters.wait_time.total)
    assert wait.count == 3
    assert (create.count, create.sum) == (counters.opened, pytest.approx(counters.create_time.total))
    names = {dict(attributes)[POOL] for name, attributes in told.points() if name == "db.client.connection.timeouts"}
    assert names == {f"{node}.{role}" for node in db.pools for role in ("writing", "reading")}


async def test_units_and_kinds_are_those_of_the_conventions(db: Router, told: Telemetry) -> None:
    """As https://opentelemetry.io/docs/specs/semconv/database/database-metrics/ has them."""
    async with db.read() as session:
        await session.execute(SELECT)
    known = {
        metric.name: (metric.unit, type(metric.data).__name__, getattr(metric.data, "is_monotonic", None))
        for metric in told.metrics()
        if metric.name.startswith("db.")
    }
    assert known == {
        "db.client.connection.count": ("{connection}", "Sum", False),
        "db.client.connection.max": ("{connection}", "Sum", False),
        "db.client.connection.pending_requests": ("{request}", "Sum", False),
        "db.client.connection.timeouts": ("{timeout}", "Sum", True),
        "db.client.connection.create_time": ("s", "Histogram", None),
        "db.client.connection.wait_time": ("s", "Histogram", None),
    }


async def test_nodes_are_told_by_their_names(cluster: Cluster, told: Telemetry) -> None:
    """A replica whose replay stands still is behind by bytes, and by seconds that grow; the primary never is."""
    async with patient(cluster) as db:
        instrument(db, told.meters, told.tracers)
        await both_in_rotation(db)
        await stand_still(cluster)
        async with db.write.begin() as session:
            await session.execute(INSERT)

        def of(name: str, node: str) -> Any:
            return told.value(name, lagwise__node=node)

        await wait_until(lambda: of("lagwise.node.lag", "replica-1") > 0, what="the replica is behind")
        before = of("lagwise.node.staleness", "replica-1")
        assert 0 < before < of("lagwise.node.staleness", "replica-1")
        assert (of("lagwise.node.lag", "primary"), of("lagwise.node.staleness", "primary")) == (0, 0)
        assert [of("lagwise.node.in_rotation", node) for node in db.pools] == [0, 1, 1]
        assert [of("lagwise.node.primary", node) for node in db.pools] == [1, 0, 0]
        db.drain("replica-2")
        assert [of("lagwise.node.in_rotation", node) for node in db.pools] == [0, 1, 0]
        assert of("lagwise.node.reading_age", "replica-1") >= 0
        assert told.value("lagwise.max_lag") == db.policy.max_lag
        assert told.value("lagwise.monitor.blind") == 0


async def test_sessions_add_up(cluster: Cluster, db: Router, told: Telemetry) -> None:
    """Each session is one step of one counter, with the node, the reason and the role that the session itself knows."""
    went = Counter[tuple[str, str, str]]()
    for _ in range(10):
        with Causality():
            for role in ("write", "read", "read"):
                async with getattr(db, role)() as session:
                    await session.execute(INSERT if role == "write" else SELECT)
                    await session.commit()
                    went[session.info["lagwise.route"].node, session.info["lagwise.route"].reason.value, role] += 1
    labels = ("lagwise.node", "lagwise.reason", "lagwise.role")
    seen = {
        tuple(dict(attributes)[label] for label in labels): value
        for (name, attributes), value in told.points().items()
        if name == "lagwise.routes"
    }
    assert seen == went
    commits = [value for (name, _), value in told.points().items() if name == "lagwise.positions"]
    assert sum(commits) == 10


async def test_what_a_lagging_replica_costs_is_told(cluster: Cluster, told: Telemetry) -> None:
    """A read that waits in vain: one wait, one fall-back, and how long it was; a refused one is counted as such."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0.1, probe_timeout=5, fall_back_limit=1)
    async with router(cluster, policy) as db:
        instrument(db, told.meters, told.tracers)
        await both_in_rotation(db)
        await stand_still(cluster)
        with Causality():
            async with db.write.begin() as session:
                await session.execute(INSERT)
            async with db.read() as session:
                await session.execute(SELECT)
                assert told.value("lagwise.fall_back_places.used") == 1
                assert told.value("lagwise.fall_back_places.limit") == 1
                with pytest.raises(NoReplica):
                    async with db.read() as refused:
                        await refused.execute(SELECT)
        assert told.value("lagwise.fall_backs", lagwise__reason="none-caught-up") == 1
        assert told.value("lagwise.waits", lagwise__outcome="primary") == 1
        assert told.value("lagwise.waits", lagwise__outcome="refused") == 1
        assert told.value("lagwise.refusals", lagwise__error="NoReplica", lagwise__role="read") == 1
        assert told.value("lagwise.wait").count == 2
        assert told.value("lagwise.wait").sum >= 0.2
        assert told.value("lagwise.tokens.brought") is None


async def test_positions_that_are_asked_for_are_timed(cluster: Cluster, told: Telemetry) -> None:
    """A connection class of the application's own tells no position with COMMIT: one question, one duration."""
    async with router(cluster, LONG, connect_args={"connection_class": asyncpg.Connection}) as db:
        instrument(db, told.meters, told.tracers)
        with Causality():
            async with db.write.begin() as session:
                await session.execute(INSERT)
        assert told.value("lagwise.positions", lagwise__node="primary", lagwise__outcome="asked") == 1
        assert told.value("lagwise.position").count == 1


async def test_the_current_span_says_where_its_session_went(db: Router, told: Telemetry) -> None:
    """Node and reason of the latest session, where the span records; elsewhere nothing is written, or fails."""
    tracer = told.tracers.get_tracer("application")
    with tracer.start_as_current_span("a read"):
        async with db.read() as session:
            await session.execute(SELECT)
            where = session.info["lagwise.route"].node
    with tracer.start_as_current_span("a write"):
        async with db.read() as session:
            await session.execute(SELECT)
        async with db.write.begin() as session:
            await session.execute(INSERT)
    async with db.read() as session:  # no span at all
        await session.execute(SELECT)
    spans = {span.name: dict(span.attributes or {}) for span in told.spans()}
    assert spans == {
        "a read": {"lagwise.node": where, "lagwise.reason": "fresh"},
        "a write": {"lagwise.node": "primary", "lagwise.reason": "write"},
    }


async def test_a_wait_for_a_replica_has_a_span_of_its_own(cluster: Cluster, told: Telemetry) -> None:
    """It lasts as long as the session waited, inside the request's span, and says how the wait ended."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0.2, probe_timeout=5)
    async with router(cluster, policy) as db:
        instrument(db, told.meters, told.tracers)
        await both_in_rotation(db)
        await stand_still(cluster)

        with Causality():
            async with db.write.begin() as session:
                await session.execute(INSERT)
            with told.tracers.get_tracer("application").start_as_current_span("a request"):
                async with db.read() as session:
                    await session.execute(SELECT)
    (wait,), (request,) = told.spans("lagwise.wait"), told.spans("a request")
    assert wait.parent is not None
    assert wait.parent.span_id == request.context.span_id
    assert dict(wait.attributes or {}) == {"lagwise.node": "primary", "lagwise.reason": "none-caught-up"}
    assert dict(request.attributes or {}) == dict(wait.attributes or {})
    assert lasted(wait) >= 0.2
    assert lasted(wait) <= lasted(request)


async def test_instrumented_twice_is_instrumented_once(db: Router, told: Telemetry) -> None:
    """The second call answers what the first one did, and nothing is counted twice."""
    assert instrument(db) is instrument(db, told.meters, told.tracers)
    async with db.write() as session:
        await session.execute(SELECT)
    pool = {"db__client__connection__pool__name": "primary.writing"}
    assert told.value("db.client.connection.wait_time", **pool).count == 1
    assert told.value("db.client.connection.max", **pool) == 1


async def test_it_ends_and_begins_again(db: Router, told: Telemetry) -> None:
    """Ended, the Router makes no event and no observation; again, its instruments show it as before.

    An instrument that is made a second time would never be asked: the SDK drops its callback.
    """
    running = instrument(db)
    running.uninstrument()
    running.uninstrument()
    assert running.ended
    assert db._nodes.watchers.told is None
    assert all(
        not (counters.wait_time.heard or counters.create_time.heard)
        for pools in db.pools.values()
        for counters in pools.tallies.values()
    )
    with told.tracers.get_tracer("application").start_as_current_span("a read"):
        async with db.read() as session:
            await session.execute(SELECT)
    assert told.points() == {}
    assert [dict(span.attributes or {}) for span in told.spans()] == [{}]
    again = instrument(db, told.meters, told.tracers)
    assert again is not running
    assert told.value("lagwise.node.staleness", lagwise__node="primary") == 0


def test_the_naive_way_to_begin_again_is_never_observed(told: Telemetry) -> None:
    """A second instrument of one name, on one meter: its callback is not called. It is why instruments are shared."""

    def callback(name: str) -> Callable[[CallbackOptions], list[Observation]]:
        return lambda _: [Observation(1, {"by": name})]

    for name in ("first", "second"):
        told.meters.get_meter("naive").create_observable_gauge("naive", [callback(name)])
    points = told.points()
    assert points == {("naive", frozenset({("by", "first")})): 1}


async def test_a_router_that_is_closed_is_not_observed(
    cluster: Cluster, told: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it is open and after it was closed: no observation, no error; open again, it is back."""
    db = router(cluster, LONG)
    instrument(db, told.meters, told.tracers)
    with caplog.at_level(logging.WARNING, "opentelemetry"):
        assert told.points() == {}
        for _ in range(2):
            async with db:
                assert told.value("lagwise.node.staleness", lagwise__node="primary") == 0
            assert not [name for name, _ in told.points() if not name.endswith("_time")]
    assert caplog.records == []


async def test_metrics_are_collected_in_a_thread_while_the_router_opens_and_closes(
    cluster: Cluster, told: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter has a thread of its own: it finds the Router in any state, and never fails."""
    db = router(cluster, LONG)
    instrument(db, told.meters, told.tracers)
    ended, rounds = asyncio.Event(), [0]

    def collect() -> None:
        while not ended.is_set():
            told.points()
            rounds[0] += 1

    with caplog.at_level(logging.WARNING, "opentelemetry"):
        collecting = asyncio.create_task(asyncio.to_thread(collect))
        for _ in range(5):
            seen = rounds[0]
            async with db:
                async with db.read() as session:
                    await session.execute(SELECT)
                await wait_until(lambda seen=seen: rounds[0] > seen, what="metrics are collected")  # type: ignore[misc]
        ended.set()
        await collecting
    assert caplog.records == []


async def test_two_routers_of_one_provider(cluster: Cluster, told: Telemetry) -> None:
    """Both are shown, the pools of one name together; what ends for one goes on for the other."""
    pool = {"db__client__connection__pool__name": "primary.writing"}
    async with router(cluster, LONG, pool_size=1) as one, router(cluster, LONG, pool_size=2) as other:
        for db in (one, other):
            instrument(db, told.meters, told.tracers)
            async with db.write() as session:
                await session.execute(SELECT)
        assert told.value("db.client.connection.max", **pool) == 3
        assert told.value("db.client.connection.wait_time", **pool).count == 2
        instrument(one).uninstrument()
        assert told.value("db.client.connection.max", **pool) == 2
        instrument(one, told.meters, told.tracers, database="archive")
        assert told.value("db.client.connection.max", **pool) == 2
        assert told.value("db.client.connection.max", **pool, lagwise__database="archive") == 1
        with told.tracers.get_tracer("application").start_as_current_span("a write"):
            async with one.write() as session:
                await session.execute(SELECT)
        assert dict(told.spans("a write")[0].attributes or {})["lagwise.database"] == "archive"


GLOBAL = """
import asyncio

from opentelemetry import metrics
from sqlalchemy import text

from lagwise import Router
from lagwise.opentelemetry import instrument
from tests.kit.telemetry import Telemetry


async def main():
    one, other = (Router("sqlite+aiosqlite://") for _ in range(2))
    instrument(one, database="one")
    told = Telemetry()
    metrics.set_meter_provider(told.meters)
    instrument(other, told.meters, database="other")
    async with one, other:
        for db in (one, other):
            async with db.read() as session:
                await session.execute(text("SELECT 1"))
        for (name, attributes), value in told.points().items():
            if name == "lagwise.routes":
                print(dict(attributes)["lagwise.database"], value)


asyncio.run(main())
"""


def test_the_global_provider_may_be_set_later() -> None:
    """What was instrumented before is shown, and what is instrumented with that very provider afterwards as well."""
    ran = subprocess.run(
        [sys.executable, "-c", GLOBAL], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert sorted(ran.stdout.splitlines()) == ["one 1", "other 1"], ran.stderr


async def test_a_router_is_not_kept_alive(cluster: Cluster, told: Telemetry) -> None:
    """Tests and scripts make many: what OpenTelemetry keeps for ever holds none of them."""
    db = router(cluster, LONG)
    instrument(db, told.meters, told.tracers)
    gone = ref(db)
    del db
    gc.collect()
    assert gone() is None
    assert told.points() == {}


async def test_what_must_not_be_told_is_not(cluster: Cluster, told: Telemetry) -> None:
    """A password, a host, a user and an error's own text: in no metric and in no span."""
    secrets = ("planted-password", "planted-host", "planted_user", "planted_table", ":5432")
    lost = make_url(cluster.primary.url).set(
        username="planted_user", password="planted-password", host="planted-host.invalid", port=5432
    )
    async with Router(cluster.primary.url, {"replica-1": lost}, policy=Policy(probe_timeout=5)) as db:
        instrument(db, told.meters, told.tracers)
        with told.tracers.get_tracer("application").start_as_current_span("a request"):
            async with db.read() as session:
                await session.execute(SELECT)
            async with db.write() as session:
                with pytest.raises(Exception, match="planted_table"):
                    await session.execute(text("SELECT * FROM planted_table"))
    async with Router(lost, policy=Policy(probe_timeout=1)) as db:
        instrument(db, told.meters, told.tracers)
        with told.tracers.get_tracer("application").start_as_current_span("refused"), pytest.raises(NoPrimary):
            async with db.write() as session:
                await session.execute(SELECT)
        said = told.everything()
    assert dict(told.spans("refused")[0].attributes or {}) == {"lagwise.refused": "NoPrimary"}
    assert "lagwise.node" in said
    for secret in (*secrets, *(node.url for node in cluster.nodes.values())):
        assert secret not in said


def test_the_page_names_every_metric() -> None:
    """Each with its unit, and no other."""
    page = (ROOT / "docs" / "opentelemetry.md").read_text()
    rows = re.findall(r"^\| (`(?:lagwise|db)\.[^|]+) \| `([^`]+)` \|", page, re.M)
    shown = {name: unit for names, unit in rows for name in re.findall(r"`([^`]+)`", names)}
    durations = (
        "db.client.connection.wait_time",
        "db.client.connection.create_time",
        "lagwise.wait",
        "lagwise.position",
    )
    observed = {each.name: each.unit for each in (*POOLS, *COUNTERS, *HELD_BACK, *GAUGES)}
    assert shown == observed | dict.fromkeys(durations, "s")


def test_every_count_is_told() -> None:
    """What a `Tally` counts has an instrument, under its own name."""
    assert [each.name.removeprefix("lagwise.").replace("tokens.", "tokens_") for each in COUNTERS] == list(LABELS)
