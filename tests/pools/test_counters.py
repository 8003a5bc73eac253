"""What a pool counts: how long sessions waited for a connection, and how long it took to open one."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lagwise._pools import counters, setup
from lagwise._pools.counters import BOUNDS, Durations
from lagwise._pools.driver import NotConnected, WaitsForItself
from lagwise._pools.pools import Pools
from lagwise.testing import Cluster, wait_until
from tests.kit.logs import a_filter_that_raises, event_of
from tests.kit.pools import ROLES, ended, pools_of, take


@pytest.fixture
async def pools(cluster: Cluster) -> AsyncIterator[Pools]:
    """Pools of one connection."""
    pools = pools_of(cluster.primary.url, pool_size=1, pool_timeout=30)
    yield pools
    await pools.close(2.0)


def test_a_duration_is_of_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    """Each bound belongs to its own bucket, and what is beyond the last bound has one more."""
    durations = Durations()
    for bound in BOUNDS:
        durations.add(bound)
        durations.add(bound * 1.0001)
    assert durations.counts == (1, *[2] * (len(BOUNDS) - 1), 1)
    assert durations.count == 2 * len(BOUNDS)
    assert durations.total == pytest.approx(2.0001 * sum(BOUNDS))


def test_nothing_at_all_is_of_the_first_bucket() -> None:
    """What took no time is counted, and adds none."""
    durations = Durations()
    durations.add_none()
    durations.add(0.0)
    assert (durations.counts[0], durations.count, durations.total) == (2, 2, 0.0)


def test_a_million_durations_take_no_more_room_than_ten() -> None:
    """The buckets are fixed: nothing is kept of a single duration."""
    durations = Durations()
    for number in range(10_000):
        durations.add(number / 100)
    assert len(durations.counts) == len(BOUNDS) + 1
    assert durations.count == 10_000


def test_what_hears_durations_comes_and_goes() -> None:
    """Each hears every duration between its beginning and its end, those of 0 too; one that ends twice ends once."""
    durations, one, other = Durations(), list[float](), list[float]()
    end_one = durations.hear(one.append)
    durations.add(0.5)
    end_other = durations.hear(other.append)
    durations.add_none()
    end_one()
    end_one()
    durations.add(2.0)
    end_other()
    durations.add(3.0)
    assert (one, other) == ([0.5, 0.0], [0.0, 2.0])
    assert durations.heard == ()


@ROLES
async def test_a_session_does_not_fail_for_its_telemetry(
    pools: Pools, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What hears a duration and raises is logged by the class of its error; the others hear on."""
    engine, heard = getattr(pools, role), list[float]()

    def fails(_: float) -> None:
        raise ValueError("planted")

    engine.counters.wait_time.hear(fails)
    engine.counters.create_time.hear(fails)
    engine.counters.wait_time.hear(heard.append)
    for _ in range(2):
        await (await take(engine)).close()
    assert heard == [0.0, 0.0]
    said = [(event_of(record), vars(record)["error"]) for record in caplog.records if record.name == "lagwise"]
    assert said == [("watcher-failed", "ValueError")] * 3
    assert "planted" not in caplog.text


async def test_it_does_not_fail_for_its_logging_either(pools: Pools) -> None:
    """What hears a duration raises, and so does the filter of the log that should say so."""

    def fails(_: float) -> None:
        raise ValueError

    pools.reads.counters.wait_time.hear(fails)
    with a_filter_that_raises():
        await (await take(pools.reads)).close()


@ROLES
async def test_sessions_that_wait_are_timed_and_those_that_do_not_count_as_nothing(pools: Pools, role: str) -> None:
    """One pool of one connection: three wait in line, and the total is no more than they can have waited together."""
    engine = getattr(pools, role)
    counters = engine.counters
    one = await take(engine)
    assert (counters.waits, counters.waiting, counters.wait_time.counts[0], counters.wait_time.total) == (0, 0, 1, 0.0)

    async def wait() -> None:
        await (await take(engine)).close()

    began = time.monotonic()
    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await wait_until(lambda: counters.waiting == 3, what="three wait")
    assert (counters.waits, counters.wait_time.count) == (3, 1)
    await one.close()
    await asyncio.gather(*tasks)
    assert (counters.waits, counters.waiting, counters.timeouts, counters.wait_time.count) == (3, 0, 0, 4)
    assert 0 < counters.wait_time.total <= 3 * (time.monotonic() - began)
    await wait()
    assert (counters.waits, counters.wait_time.count) == (3, 5)


@ROLES
async def test_a_connection_at_once_reads_no_clock_for_its_wait(
    pools: Pools, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the pool has a connection, or may open one, no session is timed."""
    engine = getattr(pools, role)
    reads = [0]

    def clock() -> float:
        reads[0] += 1
        return time.monotonic()

    monkeypatch.setattr(counters, "monotonic", clock)
    for _ in range(5):
        await (await take(engine)).close()
    assert (reads[0], engine.counters.wait_time.count) == (0, 5)


@ROLES
async def test_a_wait_that_ends_without_a_connection_counts(cluster: Cluster, role: str) -> None:
    """Given up, or cancelled: the time was waited, and nothing waits any more."""
    pools = pools_of(cluster.primary.url, pool_size=1, pool_timeout=0.2)
    engine = getattr(pools, role)
    counters = engine.counters
    one = await take(engine)
    with pytest.raises(PoolTimeout):
        await asyncio.create_task(take(engine))
    assert (counters.waits, counters.waiting, counters.timeouts, counters.wait_time.count) == (1, 0, 1, 2)
    assert counters.wait_time.total >= 0.2
    late = asyncio.create_task(take(engine))
    await wait_until(lambda: counters.waiting == 1, what="one waits")
    await ended(late)
    assert (counters.waits, counters.waiting, counters.timeouts, counters.wait_time.count) == (2, 0, 1, 3)
    await one.close()
    await pools.close(2.0)


async def test_a_session_that_would_wait_for_itself_waits_not_at_all(cluster: Cluster) -> None:
    """It counts among those that waited and those that gave up, as one that took no time."""
    pools = pools_of(cluster.primary.url, pool_size=2)
    one, two = await take(pools.writes), await take(pools.writes)
    with pytest.raises(WaitsForItself):
        await take(pools.writes)
    counters = pools.writes.counters
    assert (counters.waits, counters.timeouts, counters.wait_time.count, counters.wait_time.total) == (1, 1, 3, 0.0)
    await one.close()
    await two.close()
    await pools.close(2.0)


@ROLES
async def test_opening_a_connection_is_timed_from_its_first_byte_to_its_last_setting(
    pools: Pools, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each connection that is opened, and never for one that was open."""
    engine = getattr(pools, role)
    ticks = iter(range(100))
    monkeypatch.setattr(setup, "monotonic", lambda: float(next(ticks)))
    for _ in range(3):
        await (await take(engine)).close()
    counters = engine.counters
    assert (counters.opened, counters.create_time.count, counters.create_time.total) == (1, 1, 1.0)


async def test_a_connection_that_cannot_be_opened_is_not_timed(cluster: Cluster) -> None:
    """What was not opened took no time to open."""
    pools = pools_of(make_url(cluster.primary.url).set(database="absent"))
    with pytest.raises(NotConnected):
        await take(pools.reads)
    counters = pools.reads.counters
    assert (counters.opened, counters.create_time.count, counters.wait_time.count) == (0, 0, 1)
    await pools.close(2.0)
