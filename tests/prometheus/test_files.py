"""What a process writes for the others. Without the directory of multiprocess mode the same metrics are in memory."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Reason, Route, Router, events
from lagwise.prometheus import files as module
from lagwise.prometheus.files import Files
from lagwise.testing import wait_until
from tests.kit.contexts import outlived
from tests.kit.metrics import fleet
from tests.kit.worlds import after, primary, replica


def written(metric: Any) -> dict[tuple[str, ...], float]:
    """The numbers of one metric, by its labels."""
    (family,) = metric.collect()
    return {(*s.labels.values(),): s.value for s in family.samples if not s.name.endswith("_created")}


def opens(files: Files, times: int) -> Callable[[], bool]:
    """Whether it is written that the one pool has opened so many connections."""
    return lambda: written(files._counters["pool_opened"]) == {("primary", "writing"): times}


def test_a_count_is_written_when_it_is_told() -> None:
    """Nothing is kept back for a later moment: a killed process has lost no event."""
    files = Files(())
    tally, watcher = files.counting((), Router("sqlite+aiosqlite://"))
    told = events.Routed(route=Route("replica-1", Reason.FRESH, on_replica=True), write=False)
    for count in (1, 2):
        with pytest.raises(RuntimeError, match="no running event loop"):  # where there is none, no timer is begun
            watcher(told)
        assert written(files._counters["routes"]) == {("replica-1", "fresh", "read"): count}
    assert dict(tally.routes) == {("replica-1", "fresh", "read"): 2}


def test_a_node_that_is_no_primary_any_more_is_taken_back() -> None:
    """Files keep every series: the node that was the primary gets a 0."""
    db, files = fleet(2), Files(())
    files.counting((), db)
    files.write()
    assert written(files._gauges["node_primary"]) == {("primary",): 1}
    promoted = [replica("primary", 2000, timeline=2), primary(2000, name="replica-1", timeline=2)]
    db._nodes.monitor.view = after(promoted)
    files.write()
    assert written(files._gauges["node_primary"]) == {("primary",): 0, ("replica-1",): 1}


async def test_a_closed_one_writes_no_more() -> None:
    """Neither pools nor the timer go on with it."""
    db, files = Router("sqlite+aiosqlite://"), Files(())
    files.counting((), db)
    files.close()
    async with db, db.read() as session:
        await session.execute(text("SELECT 1"))
        assert files.write() is False
        assert sum(written(files._histograms["pool_wait_seconds"]).values()) == 0
    assert db.pools["primary"].tallies["writing"].wait_time.count == 1


async def test_gauges_are_written_while_a_router_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer begins with the first event, ends soon after the Router, and begins again with it."""
    monkeypatch.setattr(module, "_EVERY", 0.01)
    db, files = Router("sqlite+aiosqlite://"), Files(())
    _, watcher = files.counting((), db)
    db.watch(watcher)
    for turn in (1, 2):
        async with db:
            async with db.read() as session:
                await session.execute(text("SELECT 1"))
            await wait_until(lambda: written(files._gauges["open"]) == {(): 1}, what="it is seen open")
            await wait_until(opens(files, turn), what="what its pool counts is written")
            assert files._loop is not None
        await wait_until(lambda: files._loop is None, what="the timer ends")
        assert written(files._gauges["open"]) == {(): 0}
        assert written(files._gauges["pool_limit"]) == {("primary", "writing"): 0}


async def test_the_timer_of_a_first_event_keeps_no_request() -> None:
    """The first event may be told in a request, whose context ends before the timer does."""
    files = Files(())
    _, watcher = files.counting((), Router("sqlite+aiosqlite://"))
    await wait_until(lambda: files._loop is None, what="no Router is open: the timer ends")
    told = events.Routed(route=Route("replica-1", Reason.FRESH, on_replica=True), write=False)
    assert not outlived(lambda: watcher(told))
    assert files._loop is not None
