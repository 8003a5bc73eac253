"""Nobody waits for ever, for itself, or awake; and a connection goes to the one that can use it now."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.util.concurrency import greenlet_spawn

from lagwise import Causality, NoPrimary, RoutingError
from lagwise._pools.driver import NotConnected, WaitsForItself
from lagwise._pools.pools import Pools
from lagwise._pools.turns import Turns
from lagwise.testing import Cluster, wait_until
from tests.kit.pools import ROLES, ended, pools_of, take


@pytest.fixture
async def pools(cluster: Cluster) -> AsyncIterator[Pools]:
    """Pools of two connections."""
    pools = pools_of(cluster.primary.url, pool_size=2, pool_timeout=5)
    yield pools
    await pools.close(2.0)


async def test_first_come_first_served() -> None:
    """One connection at a time is handed on in the order in which it was asked for, and each waiter is woken once."""
    turns, free, served, looks = Turns(), [0], list[int](), [0]

    def available() -> bool:
        looks[0] += 1
        return free[0] > 0

    async def wait(number: int) -> None:
        await turns.wait(available, lambda: False, 60, first=False, kin=False)
        free[0] -= 1
        served.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    for number in range(5):
        free[0] += 1
        turns.go_on()
        await wait_until(lambda: len(served) == number + 1, what="the next")  # noqa: B023
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]
    assert looks[0] <= 20  # asleep in between: a spin would look thousands of times


@ROLES
async def test_requests_that_use_two_connections_all_end(pools: Pools, role: str) -> None:
    """Twenty hold one of two connections and want a second one; the naive pool stands still until its time-out."""
    engine = getattr(pools, role)

    async def request() -> None:
        one = await take(engine)
        await one.ask("SELECT 1")
        two = await take(engine)
        await two.ask("SELECT 1")
        await two.close()
        await one.close()

    await asyncio.gather(*(request() for _ in range(20)))
    assert engine.counters.timeouts == 0
    assert engine.pool.checkedout() == 0


async def test_a_request_of_many_tasks_does_not_wait_for_itself(pools: Pools) -> None:
    """Two requests hold all connections and wait for tasks of their own, which need one each."""

    async def part() -> None:
        connection = await take(pools.writes)
        await connection.ask("SELECT 1")
        await connection.close()

    async def request() -> None:
        with Causality(None):
            one = await take(pools.writes)
            await asyncio.gather(*(part() for _ in range(5)))
            await one.close()

    await asyncio.gather(request(), request(), request())


async def test_the_third_connection_of_one_request_is_an_error_at_once(pools: Pools) -> None:
    """When nothing is idle, it would wait for itself: the message says what to do."""
    one, two = await take(pools.writes), await take(pools.writes)
    with pytest.raises(WaitsForItself, match=r"holds 2 connections to node .* wait for each other"):
        await take(pools.writes)
    await one.close()
    three = await take(pools.writes)
    await two.close()
    await three.close()


async def test_a_full_pool_ends_within_its_time_out(cluster: Cluster) -> None:
    """The message names the node and its numbers."""
    pools = pools_of(cluster.primary.url, pool_size=1, pool_timeout=0.2)
    done = asyncio.Event()

    async def hold() -> None:
        connection = await take(pools.writes)
        await done.wait()
        await connection.close()

    holding = asyncio.create_task(hold())
    await wait_until(lambda: pools.writes.pool.checkedout() == 1, what="a full pool")  # type: ignore[attr-defined]
    with pytest.raises(PoolTimeout, match=r"no connection to node became free in time: 1 of 1 are in use"):
        await take(pools.writes)
    assert len(pools.tallies["writing"].longest_held(1e12)) == 1
    done.set()
    await holding
    await pools.close(2.0)


@ROLES
async def test_a_new_connection_that_hangs_is_given_up(cluster: Cluster, role: str) -> None:
    """It fails by a name that says that nothing was sent, and the monitor hears of it; an open one serves meanwhile."""
    pools = pools_of(cluster.primary.url, pool_size=2)
    engine = getattr(pools, role)
    suspected: list[str] = []
    pools.traffic.suspect = suspected.append
    idle = await take(engine)
    pools.traffic.connect_timeout = 0.3
    await idle.close()
    held = await take(engine)
    await cluster.black_hole("primary")
    try:
        with pytest.raises(NotConnected if role == "reads" else NoPrimary, match="no new connection within"):
            await take(engine)
        assert suspected == ["TimeoutError"]
        waiting = asyncio.create_task(take(engine))  # it opens a new one, and waits for the network
        await wait_until(lambda: engine.pool.checkedout() == 2, what="a connection under way")
        await held.close()
        served = await take(engine)
        assert not waiting.done()
        await served.close()
        await ended(waiting)
    finally:
        await cluster.heal()
    await pools.close(2.0)


@ROLES
@pytest.mark.parametrize("emptied", ["invalidated", "too old"])
async def test_an_idle_place_without_a_connection_is_bounded_too(cluster: Cluster, role: str, emptied: str) -> None:
    """What was invalidated, or is older than `pool_recycle`, is connected anew when it is taken: in bounds, too."""
    pools = pools_of(cluster.primary.url, pool_size=2, pool_recycle=0 if emptied == "too old" else -1)
    engine = getattr(pools, role)
    pools.traffic.connect_timeout = 0.3
    taken = await take(engine)
    if emptied == "invalidated":
        await greenlet_spawn(taken.connection.invalidate)
    await taken.close()
    assert engine.pool.checkedin() == 1
    await cluster.black_hole("primary")
    try:
        async with asyncio.timeout(20):  # the driver itself would wait for a minute
            with pytest.raises(NotConnected if role == "reads" else NoPrimary, match="no new connection within"):
                await take(engine)
    finally:
        await cluster.heal()
    await pools.close(2.0)


@ROLES
async def test_a_wrong_password_is_said_and_not_waited_for(cluster: Cluster, role: str) -> None:
    """The error names class and SQLSTATE; neither URL nor the server's text, which may name hosts."""
    pools = pools_of(make_url(cluster.primary.url).set(database="there_is_none"))
    with pytest.raises(
        RoutingError, match=r"node refused a new connection: InvalidCatalogNameError \(3D000\)"
    ) as caught:
        await take(getattr(pools, role))
    assert "there_is_none" not in str(caught.value)
    await pools.close(2.0)


async def test_a_cancellation_from_outside_stays_one(cluster: Cluster) -> None:
    """Whatever else ends while it connects: a task that is cancelled ends as cancelled."""
    pools = pools_of(cluster.primary.url)
    pools.traffic.connect_timeout = 0.1
    await cluster.black_hole("primary")
    try:
        for pause in (0.0, 0.05, 0.099, 0.1):
            task: asyncio.Task[Any] = asyncio.create_task(take(pools.reads))
            await asyncio.sleep(pause)
            (result,) = await ended(task)
            assert isinstance(result, asyncio.CancelledError | NotConnected)
            assert task.cancelled() is isinstance(result, asyncio.CancelledError)
    finally:
        await cluster.heal()
    await pools.close(2.0)
